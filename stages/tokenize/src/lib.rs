//! The kind `tokenize`: turns rows of data into token samples.
//!
//! One thread reads rows, several turn them into samples, one writes: `run`. What a row may look like stands in `row`,
//! what it draws in `augment`, how it
//! becomes ids and labels in `encode`.

mod augment;
mod closing;
mod config;
mod encode;
mod error;
mod model;
mod row;
mod run;
mod shapes;
mod tally;
mod template;

pub use config::{Config, LossOn, OnBadRow, OnTooLong, SpecialTokensInText};
pub use error::Error;
use pipe_stage::{Context, Failure, Kind, Port, Stage};
pub use row::Shape;
pub use template::PromptTemplateError;

/// The kind `tokenize`.
pub struct Tokenize;

impl Kind for Tokenize {
    type Config = Config;
    const KIND: &'static str = "tokenize";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Turns rows of data into token samples";
    const INPUTS: &'static [Port] = &[
        Port::required("model", "a Hugging Face model folder with its tokenizer and chat template"),
        Port::required("data", "rows: JSON Lines, JSON, CSV, Parquet, Arrow or text").list(),
    ];
}

impl Stage for Tokenize {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        run::run(config, context)
    }
}
