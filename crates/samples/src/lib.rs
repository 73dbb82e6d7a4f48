//! Tokenized samples in Parquet: what tokenize writes, filter, split and mix rewrite, and train reads.
//!
//! A samples folder holds one file, [`FILE_NAME`], with three columns:
//!
//! | column | type | meaning |
//! |---|---|---|
//! | `input_ids` | list of uint32 | token ids |
//! | `labels` | list of int32 | the same ids, or [`IGNORED`] where the loss must not look |
//! | `length` | uint32 | number of ids |
//!
//! The bytes of the file follow from the samples and their order alone: no time, no path, no thread count.
//! This crate knows nothing of tokenizers or tensors.

pub mod choice;
mod error;
mod lengths;
mod passes;
mod reader;
mod sample;
mod sampler;
mod schema;
mod truncate;
mod writer;

pub use error::Error;
pub use lengths::Lengths;
pub use passes::passes;
pub use reader::Reader;
pub use sample::{IGNORED, Sample, SampleRef, Samples};
pub use sampler::{SampleCountError, Sampler};
pub use truncate::TruncationSide;
pub use writer::{Totals, Writer};

/// The name of the one file in a samples folder.
pub const FILE_NAME: &str = "samples.parquet";
