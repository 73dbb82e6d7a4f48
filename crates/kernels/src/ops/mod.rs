//! The operations of a training step. Each has one file: checks, the launch of a kernel of ours on CUDA, and the same
//! written with libtorch's own operations for the CPU, which is the reference that tests compare with.
//!
//! Types: the operands and results of matrix products have the *type of the computation* (bfloat16, float16, float32, and
//! on the CPU also float64); the residual stream, norms, trained weights and gradients are float32 (float64 where the
//! computation is), called *master* type.
//!
//! Shape suffixes: T tokens of a pass, D width of the residual stream, I width into and O width out of a projection,
//! R rank, H query heads, G key heads, d width of a head, V vocabulary.

mod adapter;
mod attention;
mod check;
mod cross_entropy;
mod embedding;
mod halves;
mod heads;
mod layout;
mod lora;
mod lora_gradients;
mod lora_operands;
mod optimizer;
mod product;
mod rms_norm;
mod rms_norm_backward;
mod swiglu;
mod weight;

pub use adapter::{Adapter, Dropout, LoraInput};
pub use attention::{Attended, attention, attention_backward};
pub use cross_entropy::{CrossEntropy, cross_entropy, cross_entropy_gradient};
pub use embedding::{TokenRows, embedding_gradient};
pub use halves::Halves;
pub use heads::{Heads, turn_heads, turn_heads_backward};
pub use layout::{AdapterColumns, Layout};
pub use lora::{input_gradient, lora_down, widen_columns};
pub use lora_gradients::{AdapterGradients, lora_gradients};
pub use optimizer::{
    AdamWStep, Moments, RowGradient, Sparse, TableMut, adamw, adamw_rows, clip, partials_of, sum_of_squares,
    sum_of_squares_rows,
};
pub use product::{product, product_into};
pub use rms_norm::{Normed, rms_norm};
pub use rms_norm_backward::rms_norm_backward;
pub use swiglu::{swiglu, swiglu_backward};
pub use weight::{Int8, Nf4, Quantised, Scales, Weight, materialise, quantise_int8, quantise_nf4};

#[cfg(test)]
use crate::nvrtc::Source;

/// Every CUDA source, for the test that compiles them all.
#[cfg(test)]
pub(crate) const SOURCES: &[Source] = &[
    attention::SOURCE,
    cross_entropy::SOURCE,
    embedding::SOURCE,
    heads::SOURCE,
    lora::SOURCE,
    optimizer::SOURCE,
    rms_norm::SOURCE,
    swiglu::SOURCE,
    weight::SOURCE,
];
