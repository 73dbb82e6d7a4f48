//! GGUF, the format of llama.cpp: reading and writing files of version 3, and what Qwen3, Qwen2 and Llama models look
//! like in them.
//!
//! [`GgufWriter`] takes the declaration of all tensors first and their data in any order; [`GgufReader`] reads by position
//! and believes nothing before it has been checked. [`TensorType`] rounds rows to the types of the format and back.
//! [`Layout`] maps names and rows of a Hugging Face model; [`model_metadata`] and [`vocabulary_metadata`] say what a file
//! must say of it, [`config_object`] and [`TokenizerFiles`] go the way back. Files are never held in memory.
//!
//! # Source
//! The specification in ggml's `docs/gguf.md`, and llama.cpp's converters by way of the Python package gguf 0.19.0, which
//! made the files that the tests compare with.

mod error;
mod hf_config;
mod hf_tokenizer;
mod layout;
mod metadata;
mod pre_tokenizer;
mod quants;
mod reader;
mod tensor_type;
mod value;
mod vocabulary;
mod writer;

pub use error::Error;
pub use hf_config::config_object;
pub use hf_tokenizer::TokenizerFiles;
pub use layout::Layout;
pub use metadata::{adapter_metadata, model_metadata};
pub use reader::{GgufReader, TensorEntry};
pub use tensor_type::TensorType;
pub use value::{Array, Metadata, Value};
pub use vocabulary::{TokenKind, vocabulary_metadata};
pub use writer::{GgufTensor, GgufWriter};

/// The alignment of tensor data where a file does not say another, bytes.
pub const ALIGNMENT: u64 = 32;
