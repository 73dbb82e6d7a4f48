//! What can keep an evaluation from coming to its end.

use std::path::PathBuf;

/// An error of this stage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The model refused.
    #[error(transparent)]
    Model(#[from] pipe_nn::Error),
    /// The adapter does not fit.
    #[error(transparent)]
    Adapter(#[from] pipe_nn::adapter::AdapterError),
    /// The samples cannot be read.
    #[error(transparent)]
    Samples(#[from] pipe_samples::Error),
    /// The base's tokenizer cannot be read, or a prompt cannot be encoded.
    #[error("cannot prepare `prompts`")]
    Prompt(#[from] pipe_text::Error),
    /// There is nothing to measure.
    #[error("none of the {samples} samples has a label behind its first token, so there is no loss to measure")]
    NoLabels {
        /// How many samples there are.
        samples: usize,
    },
    /// The numbers broke.
    #[error("the loss is {loss}; the first sample whose loss is not finite is row {row}, counted from 0")]
    NotFinite {
        /// NaN or infinity.
        loss: f64,
        /// The sample.
        row: u64,
    },
    /// A record cannot be written as JSON.
    #[error("cannot write the report")]
    Record(#[from] serde_json::Error),
    /// A file of the artifact cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}
