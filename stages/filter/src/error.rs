//! Why filtering failed.

/// Why filtering failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was nothing to filter.
    #[error("there is no sample to filter: the input is empty")]
    NoSamples,
    /// No sample passed.
    #[error("none of {rows} samples is left: {dropped}")]
    NothingLeft {
        /// Samples of the input.
        rows: u64,
        /// The counts, as text.
        dropped: String,
    },
    /// The patterns need a tokenizer.
    #[error("the input `model` has no tokenizer")]
    NoTokenizer(#[source] pipe_text::Error),
    /// A sample has no text.
    #[error("the text of row {row} cannot be made out")]
    Text {
        /// The row, counted from 0.
        row: u64,
        /// Why not.
        source: pipe_text::Error,
    },
}
