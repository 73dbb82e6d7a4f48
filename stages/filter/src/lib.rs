//! The kind `filter`: keeps the token samples that are worth training on.
//!
//! `run` goes through the samples, `patterns` looks at their text, `near` compares them, `tally` counts.

mod config;
mod error;
mod near;
mod patterns;
mod run;
mod tally;

pub use config::{Config, NearDedup, OnTooLong, Part, Pattern};
pub use error::Error;
use pipe_stage::{Context, Failure, Kind, Port, Stage};

/// The kind `filter`.
pub struct Filter;

impl Kind for Filter {
    type Config = Config;
    const KIND: &'static str = "filter";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Keeps the token samples that are worth training on";
    const INPUTS: &'static [Port] = &[
        Port::required("samples", "token samples, as tokenize writes them"),
        Port::optional(config::MODEL, "the model whose tokenizer made the samples, for rules on their text"),
    ];
}

impl Stage for Filter {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        run::run(config, context)
    }
}
