//! What can go wrong in a model.

use std::path::PathBuf;

/// The result of most functions of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused; out of memory, mostly.
    #[error("libtorch: {}", first_line(source))]
    Torch {
        /// Its own error.
        #[from]
        source: tch::TchError,
    },
    /// A kernel beside libtorch's own refused.
    #[error(transparent)]
    Kernels(#[from] pipe_kernels::Error),
    /// The model folder cannot be read.
    #[error(transparent)]
    Folder(#[from] pipe_hf::Error),
    /// A quantised weight of the model folder is not what this project reads.
    #[error("{}: tensor `{name}`: {problem}", path.display())]
    Quantised {
        /// The model folder.
        path: PathBuf,
        /// The weight.
        name: String,
        /// What is wrong with it.
        problem: String,
    },
    /// A LoRA setting that no model can have.
    #[error("lora.{field}: {problem}")]
    Lora {
        /// The field of [`LoraConfig`](crate::LoraConfig).
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A sample that cannot be trained on.
    #[error("sample {row}: {problem}")]
    Sample {
        /// Its row in the data.
        row: u64,
        /// What is wrong with it.
        problem: String,
    },
    /// A prompt that cannot be continued.
    #[error("prompt: {problem}")]
    Prompt {
        /// What is wrong with it.
        problem: String,
    },
    /// A setting of sampling that is out of its range.
    #[error("{field} must be {range}, it is {value}")]
    Sampling {
        /// The field of [`Sampling`](crate::Sampling).
        field: &'static str,
        /// What it may be.
        range: &'static str,
        /// What it is.
        value: f64,
    },
    /// Logits of which no token can be chosen.
    #[error("the model's logits are not finite; its weights or its adapter are damaged")]
    Logits,
    /// An update that claims fewer labels than one of its passes has.
    #[error("an update of {update} labels cannot hold a batch of {batch}")]
    LabelCount {
        /// Labels of the update.
        update: u64,
        /// Labels of the batch.
        batch: u64,
    },
    /// A table's gradient cannot be read or written as a tensor of its own.
    #[error("the gradient of {name} is a table's, which is never whole")]
    TableGradient {
        /// The parameter.
        name: String,
    },
    /// States of an optimizer that cannot be read as tensors of the parameter's shape.
    #[error("the states of this optimizer are kept in 8 bits")]
    States,
    /// A pass without samples.
    #[error("a batch needs at least one sample")]
    EmptyBatch,
}

impl Error {
    /// Whether the device had too little memory.
    pub fn is_out_of_memory(&self) -> bool {
        let text = match self {
            Self::Torch { source } => source.to_string(),
            Self::Kernels(source) => source.to_string(),
            _ => return false,
        };
        text.contains("out of memory") || text.contains("can't allocate memory") || text.contains("not enough memory")
    }
}

/// libtorch appends a C++ backtrace to its message.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
