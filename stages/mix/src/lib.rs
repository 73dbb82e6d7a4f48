//! The kind `mix`: puts the token samples of several inputs together.
//!
//! Which source comes next is decided in `draw`, what a source gives in `source`.

mod config;
mod draw;
mod error;
mod run;
mod source;

pub use config::{Config, Source, StoppingStrategy};
pub use error::Error;
use pipe_stage::{Context, Failure, Kind, Port, Stage};

/// The kind `mix`.
pub struct Mix;

impl Kind for Mix {
    type Config = Config;
    const KIND: &'static str = "mix";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Puts the token samples of several inputs together";
    const INPUTS: &'static [Port] = &[];
    const OPEN_INPUTS: bool = true;
}

impl Stage for Mix {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        run::run(config, context)
    }
}
