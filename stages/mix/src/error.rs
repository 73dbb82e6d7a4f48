//! Why mixing failed.

/// Why mixing failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An input is a file, or files of the user's.
    #[error("the input `{input}` is {what}; mix takes samples folders")]
    NotAStage {
        /// The input.
        input: String,
        /// What it is.
        what: &'static str,
    },
    /// An input is a folder that holds something else.
    #[error("the input `{input}` cannot be mixed")]
    NotSamples {
        /// The input.
        input: String,
        /// Why not.
        source: pipe_samples::Error,
    },
    /// A source has nothing to give.
    #[error("the input `{source_name}` has no sample")]
    Empty {
        /// The source.
        source_name: String,
    },
    /// More than can be counted.
    #[error("the input `{source_name}` would give more than 2^63 rows")]
    TooMany {
        /// The source.
        source_name: String,
    },
}
