//! Hugging Face directories: `config.json`, (sharded) safetensors, PEFT adapters, and the small files beside them.
//!
//! [`ModelConfig`] reads the shapes of a Qwen3, Qwen2 or Llama model; [`Checkpoint`] reads tensors by position, never a
//! whole file; [`SafetensorsWriter`] writes a file whose tensors need not be in memory together; [`AdapterConfig`] and
//! [`AdapterTensor`] are PEFT's. This crate does no arithmetic on weights and knows no tensor library.

mod adapter;
mod checkpoint;
mod config;
mod dense;
mod dtype;
mod error;
mod fields;
mod files;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod header;
mod parameters;
mod quantization;
mod shards;
mod writer;

pub use adapter::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, AdapterConfig, AdapterTensor};
pub use checkpoint::{Checkpoint, INDEX_FILE, TensorInfo, WEIGHTS_FILE};
pub use config::{Architecture, CONFIG_FILE, ModelConfig};
pub use dtype::{beyond_float16, dtype_from_torch_name, element_bytes, narrow, torch_name, widen};
pub use error::Error;
pub use fields::{read_object, write_object};
pub use files::{copy_side_files, copy_tokenizer_files};
pub use parameters::{Parameter, Role};
pub use quantization::QuantizationConfig;
pub use safetensors::Dtype;
pub use shards::ShardedWriter;
pub use writer::{SafetensorsWriter, TensorSpec, write_safetensors};
