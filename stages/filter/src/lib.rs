//! The kind `filter`: keeps the token samples that are worth training on.

mod config;
mod run;

pub use config::Config;
use pipe_stage::{Context, Failure, Kind, Port, Stage};
pub use run::Error;

/// The kind `filter`.
pub struct Filter;

impl Kind for Filter {
    type Config = Config;
    const KIND: &'static str = "filter";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Keeps the token samples that are worth training on";
    const INPUTS: &'static [Port] = &[Port::required("samples", "token samples, as tokenize writes them")];
}

impl Stage for Filter {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        run::run(config, context)
    }
}
