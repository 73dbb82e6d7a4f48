//! The kind `tokenize`: turns rows of JSON Lines into token samples.

mod config;

pub use config::{Config, LossOn, OnBadRow};
use pipe_stage::{Context, Failure, Kind, Port, Stage};

/// The kind `tokenize`.
pub struct Tokenize;

impl Kind for Tokenize {
    type Config = Config;
    const KIND: &'static str = "tokenize";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Turns rows of JSON Lines into token samples";
    const INPUTS: &'static [Port] = &[
        Port::required("model", "a Hugging Face model folder with its tokenizer and chat template"),
        Port::required("data", "a folder of .jsonl files").list(),
    ];
}

impl Stage for Tokenize {
    fn run(_config: &Config, _context: &Context) -> Result<(), Failure> {
        Err(Failure::environment("tokenize is not built in"))
    }
}
