//! The decoder, its hand-written backward pass, LoRA, loss, optimizer and checkpoints.
//!
//! No autograd: forward and backward are written out layer by layer on plain tensors, so that memory and launches can
//! be seen in one place. The same code runs on the CPU and on CUDA. One decoder with flags serves Qwen3, Qwen2 and
//! Llama shapes, over weights that are dense, in NF4, or in 8 bits.
//!
//! ```text
//! Model::load(dir, &ModelOptions)          a Hugging Face folder, dense or bitsandbytes-4bit
//! PackedBatch::new(&[Sample])              samples of one pass, packed without padding
//! model.zero_grad()                        per optimizer update, then for each pass of it:
//! model.forward_backward(&batch, N, update)   adds the gradient of sum(NLL) / N to those of the parameters
//! model.loss(&batch)                       no dropout, no gradient
//! model.generate(&prompt, max_new, &eos)   greedy
//! Inference::load(dir, adapter, &options)  a model that only answers: sampling, sessions, the base beside the adapter
//! model.diagnose(&batch, N, update)        after a loss or gradient that is not finite: which layer, which samples
//! ```
//!
//! [`Parameter::name`] is PEFT's key in `adapter_model.safetensors`. An embedding and head that are tied in the base
//! are one parameter, under the embedding's name.
//!
//! Call `pipe_kernels::load_cuda` and `pipe_kernels::set_deterministic` before the first tensor.

mod attention;
mod batch;
mod decoder;
mod diagnose;
mod dropout;
mod embedding;
mod error;
mod generate;
mod head;
mod layer;
mod layer_inputs;
mod loader;
mod lora;
mod loss_scale;
mod model;
mod neftune;
mod norm;
mod parameter;
mod precision;
mod projection;
mod rope;
mod table_gradient;
#[cfg(test)]
mod testing;
mod transfer;

pub mod adapter;
pub mod checkpoint;
pub mod optimizer;
pub mod passes;
pub mod runtime;
pub mod schedule;

pub use batch::{IGNORED_LABEL, PackedBatch, Sample};
pub use error::{Error, Place};
pub use generate::{
    Finish, Generation, GenerationOptions, Inference, InferenceError, InferenceOptions, Sampling, Session, Voice,
};
pub use lora::{LoraConfig, TARGET_MODULES};
pub use loss_scale::LossScale;
pub use model::{BatchLoss, Model, ModelOptions, PendingLoss};
pub use parameter::{Parameter, Parameters};
pub use pipe_memory::Residency;
pub use precision::Precision;
