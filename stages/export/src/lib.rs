//! The kind `export`: a trained adapter, or base and adapter as one model, in the forms that others load.
//!
//! Weights are computed by `pipe-merge` in pieces and rounded once for each file; no libtorch is needed. What was written
//! is read back and compared with what was meant. Nothing that is written depends on the time, on a path or on the number
//! of threads.

mod adapter;
mod bnb4;
mod card;
mod check;
mod config;
mod dialogue;
mod error;
mod files;
mod formats;
mod generation;
mod gguf;
mod gguf_adapter;
mod merged;
mod modelfile;
mod run;
mod size;
mod turns;
mod weights;

pub use config::{Config, MergeInto};
pub use error::Error;
pub use formats::{Format, Formats, GgufType, WeightType};
use pipe_stage::{Kind, Port};
pub use size::{InvalidSize, Size};

/// The kind `export`.
pub struct Export;

impl Kind for Export {
    type Config = Config;
    const KIND: &'static str = "export";
    const VERSION: u32 = 2;
    const SUMMARY: &'static str = "Writes what was trained: an adapter, merged weights, GGUF, a folder for Ollama, NF4";
    const INPUTS: &'static [Port] = &[
        Port::required("model", "the Hugging Face model folder that was trained on, as it is or in NF4"),
        Port::optional("adapter", "a PEFT adapter folder, as train writes it"),
        Port::optional("original", "the model before quantize, for `merge_into: original`"),
        Port::optional("evaluation", "reports of evaluate, for the model card").list(),
    ];
}
