//! The codec: blocks of float32 to 4-bit codes and a scale a block, and back. On the thread of the caller, who knows how
//! the work is best cut.

use crate::{CODE_VALUES, THRESHOLDS};

/// Elements that share a scale. Blocks run over the flat tensor, across its rows.
pub const BLOCK: usize = 64;

/// Quantises flat, row-major `values`.
///
/// A block's scale is its largest magnitude; a code is the number of [`THRESHOLDS`] strictly below
/// `value * (1 / scale)`, in float32 with one rounding each. NaN compares as false, so a block of zeros has code 0. Of
/// the two codes in a byte the first is in the high half; an odd end is filled up with the code of 0.0.
///
/// A scale comes out NaN or infinite if and only if its block holds NaN or infinity; the codes then mean nothing.
///
/// # Shapes
/// `values: [n]`, `packed: [ceil(n / 2)]`, `absmax: [ceil(n / 64)]`; the last block may be short.
///
/// # Panics
/// If the lengths do not agree.
///
/// # Source
/// bitsandbytes, `kQuantizeBlockwise` and `dQuantizeNF4`, with an IEEE reciprocal and without flushing denormals.
pub fn quantize_blocks(values: &[f32], packed: &mut [u8], absmax: &mut [f32]) {
    assert_eq!(packed.len(), values.len().div_ceil(2), "one byte for two values");
    assert_eq!(absmax.len(), values.len().div_ceil(BLOCK), "one scale for a block");
    for ((values, packed), absmax) in values.chunks(BLOCK).zip(packed.chunks_mut(BLOCK / 2)).zip(absmax) {
        *absmax = match <&[f32; BLOCK]>::try_from(values) {
            Ok(block) => quantize_block(block, packed),
            Err(_) => {
                let mut block = [0.0; BLOCK];
                block[..values.len()].copy_from_slice(values);
                quantize_block(&block, packed)
            }
        };
    }
}

/// Quantises a block, of which `packed` may take only the start. Returns the scale.
fn quantize_block(block: &[f32; BLOCK], packed: &mut [u8]) -> f32 {
    // Without the sign bit, float32 order is integer order, with NaN above infinity: nothing gets lost in the maximum.
    let absmax = f32::from_bits(block.iter().map(|value| value.to_bits() & (u32::MAX >> 1)).max().unwrap_or(0));
    let inverse = 1.0 / absmax;
    // All thresholds for all lanes, no branch: the compiler turns it into vector compares.
    let mut codes = [0_u32; BLOCK];
    for (code, value) in codes.iter_mut().zip(block) {
        let scaled = value * inverse;
        *code = THRESHOLDS.iter().map(|threshold| u32::from(scaled > *threshold)).sum();
    }
    for (byte, pair) in packed.iter_mut().zip(codes.as_chunks::<2>().0) {
        // Both below 16.
        *byte = (pair[0] << 4 | pair[1]) as u8;
    }
    absmax
}

/// Restores flat values: `code value * scale`, one float32 product with one rounding. A narrower type is that product
/// rounded to nearest even, never a product in the narrower type.
///
/// # Shapes
/// `packed: [ceil(n / 2)]`, `absmax: [ceil(n / block)]`, `values: [n]`.
///
/// # Panics
/// If the lengths do not agree, or `block` is odd or 0.
pub fn dequantize_blocks(packed: &[u8], absmax: &[f32], block: usize, values: &mut [f32]) {
    assert!(block > 0 && block.is_multiple_of(2), "a block holds whole bytes");
    assert_eq!(packed.len(), values.len().div_ceil(2), "one byte for two values");
    assert_eq!(absmax.len(), values.len().div_ceil(block), "one scale for a block");
    for ((values, packed), absmax) in values.chunks_mut(block).zip(packed.chunks(block / 2)).zip(absmax) {
        dequantize_block(packed, *absmax, values);
    }
}

fn dequantize_block(packed: &[u8], absmax: f32, values: &mut [f32]) {
    let scaled = CODE_VALUES.map(|value| value * absmax);
    let (pairs, odd) = values.as_chunks_mut::<2>();
    for (pair, byte) in pairs.iter_mut().zip(packed) {
        *pair = [scaled[usize::from(byte >> 4)], scaled[usize::from(byte & 15)]];
    }
    if let (Some(value), Some(byte)) = (odd.first_mut(), packed.last()) {
        *value = scaled[usize::from(byte >> 4)];
    }
}
