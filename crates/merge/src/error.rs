//! Why an adapter cannot be merged into a model.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model or the adapter is not what it should be.
    #[error(transparent)]
    Files(#[from] pipe_hf::Error),
    /// A quantised weight of the base cannot be read.
    #[error(transparent)]
    Quantised(#[from] pipe_nf4::Error),
    /// A tensor of the adapter is none that LoRA has.
    #[error("{}: `{key}` is neither lora_A, lora_B nor a whole weight, so it cannot be merged", path.display())]
    UnknownTensor {
        /// The adapter's file.
        path: PathBuf,
        /// The tensor.
        key: String,
    },
    /// One of lora_A and lora_B is missing.
    #[error("{}: `{module}` has only one of lora_A and lora_B", path.display())]
    HalfPair {
        /// The adapter's file.
        path: PathBuf,
        /// The module.
        module: String,
    },
    /// The adapter has something for a module that the model does not have.
    #[error("{}: the adapter changes `{module}`, which the model does not have; give the model that it was trained on", path.display())]
    UnknownModule {
        /// The adapter's file.
        path: PathBuf,
        /// The module.
        module: String,
    },
    /// A module is both adapted and trained whole.
    #[error("{}: `{module}` has LoRA and is saved whole too; only one of both has a meaning", path.display())]
    Twice {
        /// The adapter's file.
        path: PathBuf,
        /// The module.
        module: String,
    },
    /// A tensor of the adapter does not fit the model.
    #[error(
        "{}: `{key}` has the shape {found:?}, the model asks for {expected:?}; give the model that the adapter was \
         trained on", path.display()
    )]
    Shape {
        /// The adapter's file.
        path: PathBuf,
        /// The tensor.
        key: String,
        /// The shape in the file.
        found: Vec<usize>,
        /// The shape that would fit.
        expected: Vec<usize>,
    },
    /// The weights before quantisation are asked for and not there.
    #[error("{} is quantised, and the weights that it was made from are not given", path.display())]
    NoOriginal {
        /// The model.
        path: PathBuf,
    },
    /// The weights before quantisation are quantised themselves.
    #[error("{} is quantised too, so it is not what the model was made from", path.display())]
    QuantisedOriginal {
        /// The folder given as the original.
        path: PathBuf,
    },
    /// The dequantised weights are asked for and the model is not quantised.
    #[error("{} is not quantised, so there are no dequantised weights to merge into", path.display())]
    NotQuantised {
        /// The model.
        path: PathBuf,
    },
    /// Two models that should have one shape do not.
    #[error("{} and {} are not the same model: {field} differs", path.display(), other.display())]
    OtherModel {
        /// The model.
        path: PathBuf,
        /// The folder given as the original.
        other: PathBuf,
        /// The field of `config.json`.
        field: &'static str,
    },
    /// A parameter was asked for that the result does not have. A mistake of the caller.
    #[error("the merged model has no parameter `{name}`")]
    NoParameter {
        /// Its name.
        name: String,
    },
    /// The threads cannot be started.
    #[error("cannot start the threads")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}
