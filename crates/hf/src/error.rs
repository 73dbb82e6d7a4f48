//! What can be wrong with a Hugging Face directory.

use std::{io, path::PathBuf};

use crate::Dtype;

/// An error of this crate. Each names the file, and what to do where that is not plain.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file should hold JSON and does not.
    #[error("{} is not valid JSON", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where, and what is wrong there.
        source: serde_json::Error,
    },
    /// A field of a JSON file is missing, of the wrong type, or says something that is not supported.
    #[error("{}: {field}: {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// The field, dots between the parts.
        field: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A folder holds no model weights that can be read.
    #[error("{} has no model.safetensors and no model.safetensors.index.json{hint}", path.display())]
    NoWeights {
        /// The folder.
        path: PathBuf,
        /// What it holds instead, and what to do.
        hint: &'static str,
    },
    /// A file is no safetensors file, or its header and its size contradict each other.
    #[error("{} is not a valid safetensors file: {problem}", path.display())]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A shard index contradicts its shards.
    #[error("{}: {problem}", path.display())]
    Index {
        /// The index file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A tensor is not in the checkpoint.
    #[error("{} has no tensor `{name}`", path.display())]
    MissingTensor {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the configuration says.
    #[error("{}: tensor `{name}` has the shape {found:?}, config.json says {expected:?}", path.display())]
    Shape {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape by the configuration.
        expected: Vec<usize>,
    },
    /// A tensor has an element type that the reader cannot take.
    #[error("{}: tensor `{name}` holds {found} elements; {expected} can be read here", path.display())]
    ElementType {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The type in the file.
        found: Dtype,
        /// The types that would be right.
        expected: &'static str,
    },
    /// More of a tensor was asked for, or given, than there is.
    #[error(
        "{}: tensor `{name}` has {length} bytes; bytes {start}..{end} are out of its bounds",
        path.display()
    )]
    Range {
        /// The folder or file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The first byte.
        start: u64,
        /// The byte after the last.
        end: u64,
        /// The bytes that the tensor has.
        length: u64,
    },
    /// `tie_word_embeddings` is true and yet the file has a different output head.
    #[error(
        "{}: config.json says tie_word_embeddings: true, but lm_head.weight differs from model.embed_tokens.weight; \
         set tie_word_embeddings to false to use both, or remove lm_head.weight from the checkpoint",
        path.display()
    )]
    TiedHeadDiffers {
        /// The folder.
        path: PathBuf,
    },
    /// A tensor was declared to a writer and not (wholly) written. A mistake of the caller.
    #[error("{}: tensor `{name}` was declared with {expected} bytes, {written} were written", path.display())]
    Incomplete {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// The bytes declared.
        expected: u64,
        /// The bytes written.
        written: u64,
    },
    /// A size does not fit the address space, or a tensor was declared twice.
    #[error("{}: tensor `{name}`: {problem}", path.display())]
    Layout {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl Error {
    /// Of a file that cannot be read.
    pub fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Read { path, source }
    }

    /// Of a file that cannot be written.
    pub fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Write { path, source }
    }
}
