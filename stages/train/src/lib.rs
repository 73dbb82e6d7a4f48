//! The kind `train`: fine-tunes a LoRA adapter (and, where asked for, the embedding and the head) on token samples.
//!
//! The declaration stands here and in [`config`]; the work is behind the feature `torch`, so that the engine, which
//! only checks and hashes configurations, never links libtorch.

mod config;
#[cfg(feature = "torch")]
mod error;
#[cfg(feature = "torch")]
mod evaluation;
#[cfg(feature = "torch")]
mod inputs;
mod memory;
#[cfg(feature = "torch")]
mod record;
#[cfg(feature = "torch")]
mod residency;
#[cfg(feature = "torch")]
mod run;
#[cfg(feature = "torch")]
mod trainer;

pub use config::{Config, Lora, LrSchedulerType, Optim};
use pipe_stage::{Kind, MemoryQuery, MemoryReport, Port, Program};

/// The kind `train`.
pub struct Train;

impl Kind for Train {
    type Config = Config;
    const KIND: &'static str = "train";
    const VERSION: u32 = 3;
    const SUMMARY: &'static str = "Fine-tunes a LoRA adapter on token samples";
    const PROGRAM: Program = Program::PipeTorch;
    const INPUTS: &'static [Port] = &[
        Port::required("base", "a Hugging Face model folder, as it is or quantized to bitsandbytes NF4"),
        Port::required("samples", "token samples, as tokenize and filter write them"),
        Port::optional("adapter", "a PEFT adapter folder to start from"),
        Port::optional("eval", "held-out token samples, for a loss while training"),
    ];

    fn memory(config: &Config, query: &MemoryQuery) -> Option<Result<MemoryReport, String>> {
        Some(memory::foresee(config, query))
    }
}
