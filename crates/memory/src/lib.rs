//! What training a model takes of a GPU's memory, computed from its shape before anything is loaded. Needs no libtorch.

mod residency;

pub use residency::Residency;
