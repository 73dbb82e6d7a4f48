//! The kind `split`: divides token samples into a part to train on and a part held out.

mod config;
mod run;

pub use config::Config;
use pipe_stage::{Context, Failure, Kind, Port, Stage};
pub use run::Error;

/// The kind `split`.
pub struct Split;

impl Kind for Split {
    type Config = Config;
    const KIND: &'static str = "split";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Divides token samples into a part to train on and a part held out";
    const INPUTS: &'static [Port] = &[Port::required("samples", "token samples, as tokenize and filter write them")];
    const OUTPUTS: &'static [&'static str] = &["train", "held_out"];
}

impl Stage for Split {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        run::run(config, context)
    }
}
