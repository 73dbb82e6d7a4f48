//! NF4 with double quantisation, byte for byte as bitsandbytes, on the CPU.
//!
//! The rule is that of bitsandbytes' CUDA kernels, restated with IEEE arithmetic: what a user's card makes, free of its
//! approximate reciprocal. [`quantize_blocks`] and [`dequantize_blocks`] are the codec, [`NestedAbsmax`] quantises the
//! scales, [`QuantizedTensor`] and [`QuantState`] are the tensors that stand in a checkpoint, [`PendingScales`] and [`scale_tensors`]
//! make them of pieces. Files are the caller's.
//!
//! # Source
//! Dettmers et al., QLoRA: Efficient Finetuning of Quantized LLMs, arXiv:2305.14314, section 3; bitsandbytes 0.50.2.

mod codec;
mod error;
mod nested;
mod pieces;
mod state;
mod tables;
mod tensor;

pub use codec::{BLOCK, dequantize_blocks, quantize_blocks};
pub use error::Error;
pub use nested::{NESTED_BLOCK, NestedAbsmax};
pub use pieces::{PendingScales, scale_tensors};
pub use state::{MAX_STATE_BYTES, NestedState, QuantState, SourceType};
pub use tables::{CODE_VALUES, DYNAMIC_MAP, THRESHOLDS};
pub use tensor::{Absmax, Part, QuantizedTensor, parts, suffix};
