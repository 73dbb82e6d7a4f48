//! A quantised tensor as it stands in a checkpoint: the packed codes, their scales, and what describes them.

use std::error::Error as StdError;

use half::bf16;
use rayon::prelude::*;

use crate::{
    BLOCK, CODE_VALUES, Error, NESTED_BLOCK, NestedAbsmax, NestedState, QuantState, SourceType, dequantize_blocks,
    quantize_blocks,
};

/// Blocks that a thread takes at a time.
const TASK_BLOCKS: usize = 1024;

/// What is put behind the name of a tensor for the tensors that describe it.
pub mod suffix {
    /// The scales: codes (U8) with double quantisation, else float32.
    pub const ABSMAX: &str = ".absmax";
    /// The code book, float32 `[16]`.
    pub const QUANT_MAP: &str = ".quant_map";
    /// The scales of the scales, float32.
    pub const NESTED_ABSMAX: &str = ".nested_absmax";
    /// The code book of the scales, float32 `[256]`.
    pub const NESTED_QUANT_MAP: &str = ".nested_quant_map";
    /// The JSON object of [`QuantState`](crate::QuantState), U8.
    pub const QUANT_STATE: &str = ".quant_state.bitsandbytes__nf4";
}

/// A tensor beside the quantised one, or itself (the empty suffix). The state is not among them: its size depends on
/// the values.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// One of [`suffix`], or nothing.
    pub suffix: &'static str,
    /// Whether the elements are float32; else bytes.
    pub float: bool,
    /// The shape.
    pub shape: Vec<usize>,
}

/// The tensors that a quantised tensor of `elements` elements becomes, without its state.
pub fn parts(elements: usize, double_quant: bool) -> Vec<Part> {
    let part = |suffix, float, shape: &[usize]| Part { suffix, float, shape: shape.to_vec() };
    let blocks = elements.div_ceil(BLOCK);
    let mut parts = vec![
        part("", false, &[elements.div_ceil(2), 1]),
        part(suffix::ABSMAX, !double_quant, &[blocks]),
        part(suffix::QUANT_MAP, true, &[CODE_VALUES.len()]),
    ];
    if double_quant {
        parts.push(part(suffix::NESTED_ABSMAX, true, &[blocks.div_ceil(NESTED_BLOCK)]));
        parts.push(part(suffix::NESTED_QUANT_MAP, true, &[256]));
    }
    parts
}

/// The scales of the blocks.
#[derive(Debug, Clone, PartialEq)]
pub enum Absmax {
    /// As they are, `[blocks]`.
    Plain(Vec<f32>),
    /// Quantised themselves.
    Nested(NestedAbsmax),
}

impl Absmax {
    /// The scales as float32, `[blocks]`.
    pub fn dequantize(&self) -> Vec<f32> {
        match self {
            Self::Plain(absmax) => absmax.clone(),
            Self::Nested(nested) => nested.dequantize(),
        }
    }
}

/// A tensor in NF4. The lengths of its parts agree.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizedTensor {
    shape: Vec<usize>,
    source: SourceType,
    block: usize,
    packed: Vec<u8>,
    absmax: Absmax,
}

impl QuantizedTensor {
    /// Quantises a tensor of `shape` on all threads, whose elements were of type `source` before they were widened to float32.
    ///
    /// # Errors
    /// If a value is NaN or infinite.
    ///
    /// # Panics
    /// If `values` does not have the elements of `shape`.
    pub fn quantize(values: &[f32], shape: &[usize], source: SourceType, double_quant: bool) -> Result<Self, Error> {
        assert_eq!(values.len(), shape.iter().product::<usize>(), "as many values as the shape says");
        let mut packed = vec![0; values.len().div_ceil(2)];
        let mut absmax = vec![0.0; values.len().div_ceil(BLOCK)];
        values
            .par_chunks(TASK_BLOCKS * BLOCK)
            .zip(packed.par_chunks_mut(TASK_BLOCKS * BLOCK / 2))
            .zip(absmax.par_chunks_mut(TASK_BLOCKS))
            .for_each(|((values, packed), absmax)| quantize_blocks(values, packed, absmax));
        if let Some(block) = absmax.iter().position(|scale| !scale.is_finite()) {
            let start = block * BLOCK;
            return Err(Error::NotFinite { start, end: values.len().min(start + BLOCK) });
        }
        let absmax = if double_quant { Absmax::Nested(NestedAbsmax::quantize(&absmax)) } else { Absmax::Plain(absmax) };
        Ok(Self { shape: shape.to_vec(), source, block: BLOCK, packed, absmax })
    }

    /// Takes the tensor `name` from a checkpoint. `read` gives a tensor's bytes, or `None` if there is none of that name.
    /// Without a state beside it the tensor is not quantised: `None`.
    ///
    /// # Errors
    /// If a part is missing or contradicts the state, or the state asks for another format.
    pub fn read<E: StdError + Send + Sync + 'static>(
        name: &str,
        mut read: impl FnMut(&str) -> Result<Option<Vec<u8>>, E>,
    ) -> Result<Option<Self>, Error> {
        let mut optional = |suffix: &str| {
            let name = format!("{name}{suffix}");
            match read(&name) {
                Ok(bytes) => Ok((name, bytes)),
                Err(source) => Err(Error::Read { name, source: Box::new(source) }),
            }
        };
        let (state_name, Some(state)) = optional(suffix::QUANT_STATE)? else { return Ok(None) };
        let state = QuantState::parse(&state).map_err(|problem| match problem {
            Ok(problem) => Error::Unsupported { name: state_name.clone(), problem },
            Err(source) => Error::State { name: state_name.clone(), source },
        })?;
        let elements = state.shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
        let elements = elements.filter(|elements| *elements > 0).ok_or_else(|| Error::Unsupported {
            name: state_name,
            problem: format!("the shape {:?} is not possible", state.shape),
        })?;
        let mut required = |suffix: &str, expected: usize| match optional(suffix)? {
            (_, Some(bytes)) if bytes.len() == expected => Ok(bytes),
            (name, Some(bytes)) => Err(Error::Length { name, found: bytes.len(), expected }),
            (name, None) => Err(Error::Missing { name }),
        };

        let code_values = floats(&required(suffix::QUANT_MAP, 16 * 4)?);
        if code_values.iter().zip(&CODE_VALUES).any(|(found, ours)| found.to_bits() != ours.to_bits()) {
            let problem = "its code book is not that of NF4".to_owned();
            return Err(Error::Unsupported { name: format!("{name}{}", suffix::QUANT_MAP), problem });
        }
        let packed = required("", elements.div_ceil(2))?;
        let blocks = elements.div_ceil(state.block);
        let absmax = match state.nested {
            None => Absmax::Plain(floats(&required(suffix::ABSMAX, float_bytes(blocks))?)),
            Some(NestedState { block, offset }) => Absmax::Nested(NestedAbsmax {
                codes: required(suffix::ABSMAX, blocks)?,
                absmax: floats(&required(suffix::NESTED_ABSMAX, float_bytes(blocks.div_ceil(block)))?),
                map: floats(&required(suffix::NESTED_QUANT_MAP, 256 * 4)?),
                offset,
                block,
            }),
        };
        Ok(Some(Self { shape: state.shape, source: state.source, block: state.block, packed, absmax }))
    }

    /// The shape before quantisation, `[out, in]`.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn elements(&self) -> usize {
        self.shape.iter().product()
    }

    /// The type before quantisation.
    pub fn source(&self) -> SourceType {
        self.source
    }

    /// Elements that share a scale: [`BLOCK`] unless a file says otherwise.
    pub fn block(&self) -> usize {
        self.block
    }

    /// The codes, two in a byte, the first in the high half: `[ceil(elements / 2)]`.
    pub fn packed(&self) -> &[u8] {
        &self.packed
    }

    /// The scales.
    pub fn absmax(&self) -> &Absmax {
        &self.absmax
    }

    /// What describes the tensor in a file.
    pub fn state(&self) -> QuantState {
        let nested = match &self.absmax {
            Absmax::Plain(_) => None,
            Absmax::Nested(nested) => Some(NestedState { block: nested.block, offset: nested.offset }),
        };
        QuantState { block: self.block, source: self.source, shape: self.shape.clone(), nested }
    }

    /// The weights, flat: float32 products with one rounding. Works on all threads.
    pub fn dequantize(&self) -> Vec<f32> {
        let mut values = vec![0.0; self.elements()];
        let (block, absmax) = (self.block, self.absmax.dequantize());
        values
            .par_chunks_mut(TASK_BLOCKS * block)
            .zip(self.packed.par_chunks(TASK_BLOCKS * block / 2))
            .zip(absmax.par_chunks(TASK_BLOCKS))
            .for_each(|((values, packed), absmax)| dequantize_blocks(packed, absmax, block, values));
        values
    }

    /// The weights, flat, rounded to bfloat16 (to nearest even).
    pub fn dequantize_bf16(&self) -> Vec<bf16> {
        self.dequantize().into_iter().map(bf16::from_f32).collect()
    }
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes.as_chunks().0.iter().map(|raw| f32::from_le_bytes(*raw)).collect()
}

/// Never too small: what overflows is no length of a tensor in memory.
fn float_bytes(count: usize) -> usize {
    count.saturating_mul(4)
}
