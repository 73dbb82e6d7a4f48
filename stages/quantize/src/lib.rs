//! The kind `quantize`: a Hugging Face model in bitsandbytes' 4-bit format, NF4.
//!
//! The linear layers of the blocks are quantised; embedding, head and norms pass through as they are. Works on pieces
//! of tensors: memory does not grow with the model.

mod config;
mod convert;

pub use config::{ComputeType, Config, QuantType, StorageType};
use pipe_stage::{Context, Failure, Kind, Port, Stage};

/// The kind `quantize`.
pub struct Quantize;

impl Kind for Quantize {
    type Config = Config;
    const KIND: &'static str = "quantize";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Quantizes a model's linear layers to bitsandbytes NF4";
    const INPUTS: &'static [Port] = &[Port::required("model", "a Hugging Face model folder in bf16, fp16 or fp32")];
}

impl Stage for Quantize {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        if config.bnb_4bit_storage_dtype.is_some() {
            context.warn("bnb_4bit_storage_dtype is taken for bnb_4bit_quant_storage, the name that bitsandbytes has");
        }
        convert::run(config, context)
    }
}
