//! The kind `export`: a trained adapter as a PEFT folder that can be published.
//!
//! It copies and describes; it computes nothing and needs no libtorch. Nothing that it writes depends on the time or
//! on a path.

mod card;
mod config;
mod error;
mod run;

pub use config::Config;
pub use error::Error;
use pipe_stage::{Kind, Port};

/// The kind `export`.
pub struct Export;

impl Kind for Export {
    type Config = Config;
    const KIND: &'static str = "export";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Packs an adapter as a PEFT folder with tokenizer and model card";
    const INPUTS: &'static [Port] = &[
        Port::required("model", "a Hugging Face model folder, for its tokenizer"),
        Port::required("adapter", "a PEFT adapter folder, as train writes it"),
        Port::optional("evaluation", "reports of evaluate, for the model card").list(),
    ];
}
