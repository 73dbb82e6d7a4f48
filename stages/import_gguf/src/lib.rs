//! The kind `import_gguf`: a model of llama.cpp's as a Hugging Face folder.
//!
//! Weights are restored to plain values and put into the order that transformers has; tokenizer, chat template and
//! configuration come from the metadata of the file. Works on pieces of tensors: memory does not grow with the model.

mod config;
mod convert;

pub use config::{Config, WeightType};
use pipe_stage::{Context, Failure, Kind, Port, Stage};

/// The kind `import_gguf`.
pub struct ImportGguf;

impl Kind for ImportGguf {
    type Config = Config;
    const KIND: &'static str = "import_gguf";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Makes a Hugging Face model folder of a GGUF file";
    const INPUTS: &'static [Port] = &[Port::required("model", "a folder with a GGUF file")];
}

impl Stage for ImportGguf {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        convert::run(config, context)
    }
}
