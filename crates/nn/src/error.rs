//! What can go wrong in a model.

use std::{fmt, path::PathBuf};

use pipe_kernels::OutOfMemory;

/// The result of most functions of this crate.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The device had too little memory, and where that was is known.
    #[error("{memory} (in {place})")]
    OutOfMemory {
        /// What it had and what was asked for.
        memory: Box<OutOfMemory>,
        /// What was being computed.
        place: Place,
    },
    /// libtorch refused.
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
    /// A base that is packed already was to be packed in 8 bits.
    #[error(
        "{}: the base is quantised to 4 bits already, and `load_in_8bit` packs one that is not: leave it out, or give \
         the base as it is",
        path.display()
    )]
    AlreadyQuantised {
        /// The model folder.
        path: PathBuf,
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
    /// Fewer inputs of layers than layers: a mistake of this crate.
    #[error("the input of a layer is missing in the backward pass")]
    LayerInputs,
    /// A pass without samples.
    #[error("a batch needs at least one sample")]
    EmptyBatch,
}

/// A part of the computation, with the number of the layer, counted from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// The weights on their way to the device.
    Weights,
    /// The embedding, its noise and its gradient.
    Embedding,
    /// A layer's forward pass.
    Forward(usize),
    /// A layer's backward pass.
    Backward(usize),
    /// The head with the loss and their gradients.
    Head,
    /// The update of the trained weights.
    Optimizer,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Weights => write!(formatter, "the weights on their way to the device"),
            Self::Embedding => write!(formatter, "the embedding"),
            Self::Forward(layer) => write!(formatter, "the forward pass of layer {layer}"),
            Self::Backward(layer) => write!(formatter, "the backward pass of layer {layer}"),
            Self::Head => write!(formatter, "the head and the loss"),
            Self::Optimizer => write!(formatter, "the optimizer"),
        }
    }
}

impl Error {
    /// Whether the device had too little memory.
    pub fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::OutOfMemory { .. }) || self.memory().is_some()
    }

    /// Says where memory ran out, if that is what is wrong and nobody has said it closer to the place.
    pub(crate) fn at(self, place: Place) -> Self {
        match self.memory() {
            Some(memory) => Self::OutOfMemory { memory: Box::new(memory), place },
            None => self,
        }
    }

    fn memory(&self) -> Option<OutOfMemory> {
        match self {
            Self::Torch { source } => OutOfMemory::of(&source.to_string()),
            Self::Kernels(source) => OutOfMemory::of(&source.to_string()),
            _ => None,
        }
    }
}

/// libtorch appends a C++ backtrace to its message.
fn first_line(error: &tch::TchError) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::{Device, Kind, Tensor};

    use super::*;

    #[test]
    fn what_ran_out_of_memory_says_where() {
        let refused = || Tensor::f_empty([1 << 46], (Kind::Float, Device::Cpu)).unwrap_err();
        for error in [Error::from(refused()), Error::Kernels(refused().into())] {
            assert!(error.is_out_of_memory());
            let error = error.at(Place::Backward(3)).at(Place::Optimizer);
            assert!(error.is_out_of_memory());
            let text = error.to_string();
            assert!(text.starts_with("the machine is out of memory: 262144.00 GiB was asked for"), "{text}");
            assert!(text.ends_with(" is free (in the backward pass of layer 3)"), "{text}");
        }
        let other = Error::EmptyBatch.at(Place::Head);
        assert!(!other.is_out_of_memory() && matches!(other, Error::EmptyBatch));
    }
}
