//! What can keep a training run from going on.

use std::path::PathBuf;

use pipe_nn::{adapter::AdapterError, checkpoint::CheckpointError};
use pipe_samples::SampleCountError;
use pipe_stage::Failure;

/// An error of this stage.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An update did not fit.
    #[error("step {step}, in passes of up to {tokens} tokens, does not fit into the memory")]
    OutOfMemory {
        /// The step, counted from 1.
        step: u64,
        /// Tokens of its largest pass.
        tokens: usize,
        /// What was computed, and who held how much.
        source: pipe_nn::Error,
    },
    /// The model refused.
    #[error(transparent)]
    Model(#[from] pipe_nn::Error),
    /// libtorch refused.
    #[error("libtorch cannot update the trained tensors")]
    Torch(#[from] tch::TchError),
    /// The samples cannot be read.
    #[error(transparent)]
    Samples(#[from] pipe_samples::Error),
    /// There are too many samples, or none.
    #[error(transparent)]
    SampleCount(#[from] SampleCountError),
    /// The base's configuration cannot be read.
    #[error(transparent)]
    Base(#[from] pipe_hf::Error),
    /// The base's tokenizer cannot be read, or a prompt cannot be encoded.
    #[error("cannot prepare `prompts`")]
    Prompt(#[from] pipe_text::Error),
    /// The adapter to start from does not fit, or the trained one cannot be written.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// A checkpoint cannot be written or read.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is nothing to learn.
    #[error(
        "none of the {samples} samples of `{input}` has a label behind its first token; \
         look at tokenize's `loss_on` and `max_length`, and filter with `drop_unlabelled: true`"
    )]
    NoLabels {
        /// The name of the input.
        input: &'static str,
        /// How many samples there are.
        samples: usize,
    },
    /// The samples were tokenized for another model.
    #[error(
        "row {row} of `{input}` has the token {token}, and the base has a vocabulary of {vocab_size}: \
         tokenize with this base's tokenizer"
    )]
    Vocabulary {
        /// The name of the input.
        input: &'static str,
        /// Counted from 0.
        row: usize,
        /// The id.
        token: i64,
        /// Ids that the base knows.
        vocab_size: usize,
    },
    /// A tied model was asked to train one of two names of the same tensor.
    #[error(
        "lora.modules_to_save names `{module}` alone, and this base ties embed_tokens and lm_head: \
         name both, which trains one tensor for the two, or neither"
    )]
    HalfTied {
        /// The module.
        module: String,
    },
    /// The numbers broke.
    #[error("step {step}: the {quantity} is {value}; samples (rows counted from 0): {rows}; {diagnosis}")]
    NotFinite {
        /// The step, counted from 1.
        step: u64,
        /// `loss` or `norm of the gradient`.
        quantity: &'static str,
        /// NaN or infinity.
        value: f64,
        /// The samples of the step.
        rows: String,
        /// The layer, in words.
        diagnosis: String,
    },
    /// Nothing was learned.
    #[error("none of the {updates} updates had gradients in the range of float16, so none changed the weights")]
    AllSkipped {
        /// Updates of the run.
        updates: u64,
    },
    /// The last update broke the weights.
    #[error("the last update, step {step}, made the weights of {name} infinite or NaN")]
    WeightsNotFinite {
        /// The step, counted from 1.
        step: u64,
        /// The tensor.
        name: String,
    },
    /// A checkpoint holds a record that this program did not write.
    #[error("a checkpoint's {file} cannot be read")]
    Record {
        /// The file.
        file: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file of the artifact cannot be written.
    #[error("cannot write {}", .path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
}

impl Error {
    /// As the engine wants it: memory is the machine's fault, and broken numbers come with advice.
    pub(crate) fn into_failure(self) -> Failure {
        match self {
            Self::OutOfMemory { .. } => Failure::environment(self).hint(
                "lower `max_tokens_per_pass`, set `gradient_checkpointing: true` or `optim: adamw_8bit`, or give a \
                 `memory_limit` to keep to",
            ),
            Self::Model(error) if error.is_out_of_memory() => Failure::environment(error)
                .hint("quantize the base to NF4, train fewer `lora.modules_to_save`, or set `optim: adamw_8bit`"),
            Self::NotFinite { .. } | Self::WeightsNotFinite { .. } => Failure::from(self)
                .hint("look at the step's samples; where they are sound, lower `learning_rate` or warm up for longer"),
            Self::AllSkipped { .. } => Failure::from(self)
                .hint("a run needs some updates to find its loss scale: train for longer, or write `bf16: true`"),
            other => Failure::from(other),
        }
    }
}
