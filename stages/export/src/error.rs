//! What can keep an export from being made.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The adapter or the model is not what it should be.
    #[error(transparent)]
    Files(#[from] pipe_hf::Error),
    /// Model and adapter cannot be merged.
    #[error(transparent)]
    Merge(#[from] pipe_merge::Error),
    /// The model cannot be said in GGUF, or the file not written.
    #[error(transparent)]
    Gguf(#[from] pipe_gguf::Error),
    /// Tokenizer or template cannot be used.
    #[error(transparent)]
    Text(#[from] pipe_text::Error),
    /// A file cannot be read or written.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A file should hold JSON of a certain form and does not.
    #[error("{} is not {expected}", .path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What it should be.
        expected: &'static str,
        /// What is wrong with it.
        source: serde_json::Error,
    },
    /// A weight is NaN or infinite.
    #[error(
        "`{tensor}` holds NaN or infinity in its rows {first_row} to {last_row}; the model or the adapter is damaged"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
        /// The first row that may have it.
        first_row: usize,
        /// The last.
        last_row: usize,
    },
    /// A weight is too large for float16.
    #[error("`{tensor}` holds {value}, which float16 cannot: it ends at 65504")]
    TooLarge {
        /// The tensor.
        tensor: String,
        /// The value.
        value: f32,
    },
    /// A GGUF adapter cannot hold modules trained as a whole.
    #[error("the adapter has `{module}` trained as a whole, which a GGUF adapter cannot hold")]
    SavedModule {
        /// The module.
        module: String,
    },
    /// The chat template does something that Ollama's templates cannot.
    #[error("the chat template cannot be written as a template of Ollama's: {problem}")]
    Template {
        /// What.
        problem: String,
    },
    /// The model has no chat template.
    #[error("{} has no chat template, so Ollama would not know how to talk with it", .path.display())]
    NoTemplate {
        /// The folder.
        path: PathBuf,
    },
    /// What was written is not what was meant.
    #[error("the check of `{format}` failed: {problem}")]
    Check {
        /// The format.
        format: &'static str,
        /// What differs.
        problem: String,
    },
    /// The stage was asked to stop.
    #[error("stopped on request")]
    Cancelled,
}

impl Error {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// What the user can do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Merge(pipe_merge::Error::NoOriginal { .. }) => {
                Some("give the model before `quantize` as the input `original`, or leave `merge_into` out")
            }
            Self::Merge(pipe_merge::Error::NotQuantised { .. }) => {
                Some("give the output of `quantize` as the input `model`, or leave `merge_into` out")
            }
            Self::TooLarge { .. } => Some("set `dtype: bf16` or fp32, or `gguf_type: bf16`"),
            Self::SavedModule { .. } => Some("set `format: gguf`, which merges it"),
            Self::Template { .. } | Self::NoTemplate { .. } => {
                Some("set `format: gguf` instead: the file holds the model's own template, where it has one")
            }
            _ => None,
        }
    }
}
