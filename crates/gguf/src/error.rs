//! What can be wrong with a GGUF file, or with a model that should become one.

use std::{io, path::PathBuf};

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file is no GGUF file, or a damaged one.
    #[error("{} is not a valid GGUF file: {problem}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// A metadata key is missing, or says what is not supported.
    #[error("{}: {key}: {problem}", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// The key.
        key: String,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A tensor is missing, or is not what it should be.
    #[error("{}: tensor `{name}` {problem}", path.display())]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A file cannot be read or written, or is not what a Hugging Face folder's should be.
    #[error(transparent)]
    Folder(#[from] pipe_hf::Error),
    /// A tokenizer cannot be said in GGUF.
    #[error("{}: {problem}", path.display())]
    Tokenizer {
        /// The file.
        path: PathBuf,
        /// What is in the way, and what is supported.
        problem: String,
    },
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let error = pipe_hf::Error::read(path);
        move |source| Self::Folder(error(source))
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let error = pipe_hf::Error::write(path);
        move |source| Self::Folder(error(source))
    }
}
