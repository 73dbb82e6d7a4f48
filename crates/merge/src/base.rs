//! Weights of a base, plain or in NF4, by ranges of elements.

use pipe_hf::Checkpoint;
use pipe_nf4::{Error as QuantError, QuantizedTensor, dequantize_blocks};

use crate::Error;

/// Where the elements of a tensor come from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// bf16, fp16 or fp32 in a file.
    File { checkpoint: &'a Checkpoint, name: String },
    /// Codes and scales in memory, about half a byte an element.
    Nf4 { tensor: QuantizedTensor, absmax: Vec<f32> },
}

impl<'a> Source<'a> {
    /// The tensor `name`, which is in NF4 if it has a state beside it.
    pub(crate) fn open(checkpoint: &'a Checkpoint, name: &str) -> Result<Self, Error> {
        let read = |name: &str| checkpoint.contains(name).then(|| checkpoint.read(name)).transpose();
        match QuantizedTensor::read(name, read)? {
            Some(tensor) => {
                let absmax = tensor.absmax().dequantize();
                Ok(Self::Nf4 { tensor, absmax })
            }
            None => Ok(Self::File { checkpoint, name: name.to_owned() }),
        }
    }

    /// The shape that the tensor has, or had before it was quantised.
    pub(crate) fn shape(&self) -> Result<&[usize], Error> {
        match self {
            Self::File { checkpoint, name } => Ok(&checkpoint.info(name)?.shape),
            Self::Nf4 { tensor, .. } => Ok(tensor.shape()),
        }
    }

    /// Fills `values` from element `first` on.
    pub(crate) fn read(&self, first: usize, values: &mut [f32]) -> Result<(), Error> {
        match self {
            Self::File { checkpoint, name } => Ok(checkpoint.read_f32_range(name, first, values)?),
            Self::Nf4 { tensor, absmax } => dequantize(tensor, absmax, first, values),
        }
    }
}

/// Blocks run across rows, so that a row may begin within one.
fn dequantize(tensor: &QuantizedTensor, absmax: &[f32], first: usize, values: &mut [f32]) -> Result<(), Error> {
    let block = tensor.block();
    let end = first + values.len();
    if end > tensor.elements() {
        return Err(QuantError::Range { start: first, end, elements: tensor.elements() }.into());
    }
    let start = first - first % block;
    let packed = &tensor.packed()[start / 2..end.div_ceil(2)];
    let absmax = &absmax[start / block..end.div_ceil(block)];
    if start == first {
        dequantize_blocks(packed, absmax, block, values);
    } else {
        let mut whole = vec![0.0; end - start];
        dequantize_blocks(packed, absmax, block, &mut whole);
        values.copy_from_slice(&whole[first - start..]);
    }
    Ok(())
}
