//! The kind `evaluate`: held-out loss, perplexity and greedy answers of a model, with or without an adapter.
//!
//! The declaration stands here and in [`config`]; the work is behind the feature `torch`.

mod config;
#[cfg(feature = "torch")]
mod error;
#[cfg(feature = "torch")]
mod run;

pub use config::Config;
use pipe_stage::{Kind, Port, Program};

/// The kind `evaluate`.
pub struct Evaluate;

impl Kind for Evaluate {
    type Config = Config;
    const KIND: &'static str = "evaluate";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Measures loss and perplexity on held-out samples, and answers prompts";
    const PROGRAM: Program = Program::PipeTorch;
    const INPUTS: &'static [Port] = &[
        Port::required("base", "a Hugging Face model folder, as it is or quantized to bitsandbytes NF4"),
        Port::required("samples", "held-out token samples"),
        Port::optional("adapter", "a PEFT adapter folder to put on the base"),
    ];
}
