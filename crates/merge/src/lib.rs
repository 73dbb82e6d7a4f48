//! A model with a LoRA adapter merged in: `W + s B A`, computed in float64, a few rows at a time.
//!
//! [`Merged`] opens a base (plain, or in NF4) and an adapter and says which parameters the result has;
//! [`Merged::stream`] computes them in pieces, on all threads, so that memory does not grow with the model. The values
//! come as float32: whoever writes them rounds them once more at most. This crate writes nothing and knows no tensor library.
//!
//! # Source
//! Hu et al., LoRA, arXiv:2106.09685, section 4.1; PEFT 0.21.2, `merge_and_unload`, which rounds an NF4 base a second
//! time where this crate does not.

mod adapter;
mod base;
mod error;
mod merged;
mod product;
mod stream;

pub use adapter::{Adapter, Pair};
pub use error::Error;
pub use merged::{MergeInto, Merged, Tensor};
pub use stream::{PIECE_ELEMENTS, Piece, piece_rows};
