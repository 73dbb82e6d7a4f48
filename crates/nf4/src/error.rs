//! What can be wrong with a quantised tensor.

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is NaN or infinite.
    #[error("elements {start}..{end} hold NaN or infinity, which cannot be quantised")]
    NotFinite {
        /// The first element of the block that has it.
        start: usize,
        /// The element after the last.
        end: usize,
    },
    /// More of a tensor was asked for than there is.
    #[error("elements {start}..{end} are out of the bounds of a tensor of {elements}")]
    Range {
        /// The first element.
        start: usize,
        /// The element after the last.
        end: usize,
        /// The elements that there are.
        elements: usize,
    },
    /// A tensor of a checkpoint is missing.
    #[error("`{name}` is missing")]
    Missing {
        /// The tensor.
        name: String,
    },
    /// A tensor of a checkpoint contradicts the others.
    #[error("`{name}` has {found} bytes, its quant_state asks for {expected}")]
    Length {
        /// The tensor.
        name: String,
        /// Its size, bytes.
        found: usize,
        /// The size that would be right, bytes.
        expected: usize,
    },
    /// The state of a tensor is no valid JSON of the known fields.
    #[error("`{name}` is not a valid quant_state")]
    State {
        /// The tensor.
        name: String,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The state of a tensor, or its code book, asks for something that is not supported.
    #[error("`{name}`: {problem}")]
    Unsupported {
        /// The tensor.
        name: String,
        /// What is not supported, and what is.
        problem: String,
    },
    /// The source of the bytes failed.
    #[error("cannot read `{name}`")]
    Read {
        /// The tensor.
        name: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
