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
mod noise;
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
pub use noise::{Noise, add_noise};
pub use optimizer::{
    AdamWStep, Moments, RowGradient, Sparse, TableMut, adamw, adamw_rows, clip, partials_of, sum_of_squares,
    sum_of_squares_rows,
};
pub use product::{product, product_into};
pub use rms_norm::{Normed, rms_norm};
pub use rms_norm_backward::rms_norm_backward;
pub use swiglu::{swiglu, swiglu_backward};
pub use weight::{Int8, Nf4, Quantised, Scales, Weight, materialise, quantise_int8, quantise_nf4};

use crate::{element::Element, nvrtc::Source};

/// What training launches, computing in `element` with heads of `head_width`. What takes longest to compile is first.
pub(crate) fn sources_of_training(element: Element, head_width: i64) -> Vec<(&'static Source, Element)> {
    let attention = attention::source_for(head_width).filter(|_| element != Element::Float32);
    let computing =
        [&rms_norm::SOURCE, &lora::SOURCE, &swiglu::SOURCE, &heads::SOURCE, &weight::SOURCE, &cross_entropy::SOURCE];
    // Trained weights, their gradients and the residual stream are float32.
    let float32 = [&optimizer::SOURCE, &embedding::SOURCE, &noise::SOURCE].map(|source| (source, Element::Float32));
    attention.into_iter().chain(computing).map(|source| (source, element)).chain(float32).collect()
}

/// Every CUDA source.
#[cfg(test)]
pub(crate) fn all_sources() -> Vec<&'static Source> {
    let attention = attention::SOURCES.iter().map(|(_, source)| source);
    let others = [Element::Float32, Element::Bfloat16].map(|element| sources_of_training(element, 0));
    let mut sources: Vec<_> = attention.chain(others.into_iter().flatten().map(|(source, _)| source)).collect();
    sources.sort_by_key(|source| source.name);
    sources.dedup_by_key(|source| source.name);
    sources
}
