//! The scales of a tensor that is quantised piece by piece, and the tensors that come of them.

use std::sync::{Mutex, PoisonError};

use crate::{
    BLOCK, CODE_VALUES, DYNAMIC_MAP, NESTED_BLOCK, NestedAbsmax, NestedState, QuantState, SourceType, tensor::suffix,
};

/// The scales of a tensor while its pieces are quantised, by any threads and in any order. No memory before the first
/// piece and after the last.
#[derive(Debug, Default)]
pub struct PendingScales(Mutex<Collected>);

#[derive(Debug, Default)]
struct Collected {
    absmax: Vec<f32>,
    blocks_done: usize,
}

impl PendingScales {
    /// Takes up the scales of a piece that begins with block `first`, of a tensor of `elements` elements. Gives all of them
    /// when the last are there.
    pub fn add(&self, elements: usize, first: usize, absmax: &[f32]) -> Option<Vec<f32>> {
        let blocks = elements.div_ceil(BLOCK);
        let mut collected = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        collected.absmax.resize(blocks, 0.0);
        collected.absmax[first..][..absmax.len()].copy_from_slice(absmax);
        collected.blocks_done += absmax.len();
        (collected.blocks_done == blocks).then(|| std::mem::take(&mut collected.absmax))
    }
}

/// The tensors beside the codes as bytes, by their [`suffix`], and the state that stands in a tensor of its own.
pub fn scale_tensors(
    absmax: &[f32],
    source: SourceType,
    shape: &[usize],
    double_quant: bool,
) -> (Vec<(&'static str, Vec<u8>)>, QuantState) {
    let mut tensors = vec![(suffix::QUANT_MAP, bytes(&CODE_VALUES))];
    let nested = if double_quant {
        let NestedAbsmax { codes, absmax, offset, .. } = NestedAbsmax::quantize(absmax);
        tensors.push((suffix::ABSMAX, codes));
        tensors.push((suffix::NESTED_ABSMAX, bytes(&absmax)));
        tensors.push((suffix::NESTED_QUANT_MAP, bytes(&DYNAMIC_MAP)));
        Some(NestedState { block: NESTED_BLOCK, offset })
    } else {
        tensors.push((suffix::ABSMAX, bytes(absmax)));
        None
    };
    (tensors, QuantState { block: BLOCK, source, shape: shape.to_vec(), nested })
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}
