//! Double quantisation: the scales of the blocks, themselves in 8 bits.

use crate::DYNAMIC_MAP;

/// Scales that share a scale of their own.
pub const NESTED_BLOCK: usize = 256;

/// Quantised scales: `map[code] * absmax + offset`.
#[derive(Debug, Clone, PartialEq)]
pub struct NestedAbsmax {
    /// A code a scale, `[blocks]`.
    pub codes: Vec<u8>,
    /// The largest magnitude of scale - offset, `[ceil(blocks / block)]`.
    pub absmax: Vec<f32>,
    /// The mean of the scales.
    pub offset: f32,
    /// The code book, `[256]`: [`DYNAMIC_MAP`] unless a file brought its own.
    pub map: Vec<f32>,
    /// Scales that share a scale: [`NESTED_BLOCK`] unless a file says otherwise.
    pub block: usize,
}

impl NestedAbsmax {
    /// Quantises scales. The offset is their mean, summed in float64 in the order of the index, so that it depends on
    /// neither device nor threads.
    pub fn quantize(absmax: &[f32]) -> Self {
        let sum: f64 = absmax.iter().map(|scale| f64::from(*scale)).sum();
        let mean = if absmax.is_empty() { 0.0 } else { (sum / absmax.len() as f64) as f32 };
        Self::quantize_with_offset(absmax, mean)
    }

    /// The same with a given offset.
    pub fn quantize_with_offset(absmax: &[f32], offset: f32) -> Self {
        let mut codes = vec![0; absmax.len()];
        let mut nested = vec![0.0; absmax.len().div_ceil(NESTED_BLOCK)];
        for ((codes, absmax), nested) in
            codes.chunks_mut(NESTED_BLOCK).zip(absmax.chunks(NESTED_BLOCK)).zip(&mut nested)
        {
            *nested = quantize_block(absmax, offset, codes);
        }
        Self { codes, absmax: nested, offset, map: DYNAMIC_MAP.to_vec(), block: NESTED_BLOCK }
    }

    /// Restores the scales, `[blocks]`: a product and a sum, each rounded to float32.
    pub fn dequantize(&self) -> Vec<f32> {
        let blocks = self.codes.chunks(self.block).zip(&self.absmax);
        blocks
            .flat_map(|(codes, absmax)| {
                codes.iter().map(move |code| self.map[usize::from(*code)] * absmax + self.offset)
            })
            .collect()
    }
}

fn quantize_block(scales: &[f32], offset: f32, codes: &mut [u8]) -> f32 {
    let absmax = scales.iter().map(|scale| (scale - offset).abs()).fold(0.0, f32::max);
    let inverse = 1.0 / absmax;
    for (code, scale) in codes.iter_mut().zip(scales) {
        *code = nearest((scale - offset) * inverse);
    }
    absmax
}

/// The entry of the map that is nearest to `value`. On an exact midpoint the search stays at its last pivot, the
/// even entry. NaN (from a block without spread) compares as false everywhere and gives 0.
///
/// # Source
/// bitsandbytes, `dQuantize<0>`: a binary search of seven steps from entry 127, then a comparison with the midpoint to
/// the neighbour that the search passed on the other side.
fn nearest(value: f32) -> u8 {
    let (mut lower, mut pivot, mut upper) = (0_usize, 127_usize, 255_usize);
    for step in [64, 32, 16, 8, 4, 2, 1] {
        if value > DYNAMIC_MAP[pivot] {
            lower = pivot;
            pivot += step;
        } else {
            upper = pivot;
            pivot -= step;
        }
    }
    let at_pivot = DYNAMIC_MAP[pivot];
    let entry = if value > at_pivot {
        if value > (DYNAMIC_MAP[upper] + at_pivot) * 0.5 { upper } else { pivot }
    } else if value < (DYNAMIC_MAP[lower] + at_pivot) * 0.5 {
        lower
    } else {
        pivot
    };
    // An index into 256 entries.
    entry as u8
}
