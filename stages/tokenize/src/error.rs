//! Why tokenizing can fail. What is wrong with a single row is a [`BadRow`](crate::row::BadRow) first.

use std::path::PathBuf;

/// Why a `tokenize` stage failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data cannot be read.
    #[error(transparent)]
    Records(#[from] pipe_records::Error),
    /// A file of the model cannot be read.
    #[error("cannot read {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A row cannot be used, and `on_bad_row` says to fail.
    #[error("{place}: {reason}")]
    BadRow {
        /// The row: file and line, or file and row.
        place: String,
        /// What is wrong.
        reason: String,
    },
    /// A row needs what the model does not have.
    #[error("{place}: a row of this shape needs {missing}, and the input `model` has none")]
    Model {
        /// The row: file and line, or file and row.
        place: String,
        /// A tokenizer, or a chat template.
        missing: &'static str,
    },
    /// The tokenizer is not the model's.
    #[error("the tokenizer gives the id {id}, and config.json says that the model knows {vocab_size} ids")]
    Vocabulary {
        /// The id.
        id: u32,
        /// What the model has.
        vocab_size: u64,
    },
    /// `add_eos` without an end token.
    #[error("add_eos is set, and the input `model` names no end token: its tokenizer_config.json needs an eos_token")]
    NoEos,
    /// `columns` names what no row has.
    #[error("none of {rows} rows has anything in the column `{column}`, which `columns` names for `{field}`{bad}")]
    NoColumn {
        /// Rows that were read.
        rows: u64,
        /// The field that it is for.
        field: String,
        /// The column.
        column: String,
        /// The counts of bad rows, as text.
        bad: String,
    },
    /// A text that is no prompt template.
    #[error("prompt_templates.{index} {source}")]
    PromptTemplate {
        /// Which one, from 0.
        index: usize,
        /// Why not.
        source: crate::PromptTemplateError,
    },
    /// Nothing came out.
    #[error("none of {rows} rows gives a sample{bad}")]
    NoSamples {
        /// Rows that were read.
        rows: u64,
        /// The counts of bad rows, as text.
        bad: String,
    },
    /// Nothing would be trained.
    #[error("the loss counts no token of any of {rows} samples: all labels are -100")]
    NothingTrained {
        /// Samples.
        rows: u64,
    },
    /// No end of a turn would be trained.
    #[error("the loss counts the end of no turn of the assistant's, so a model would never learn where to stop")]
    NeverEnds,
    /// The tokenizer or the template failed.
    #[error(transparent)]
    Text(#[from] pipe_text::Error),
    /// The samples cannot be written.
    #[error(transparent)]
    Samples(#[from] pipe_samples::Error),
}
