//! The codecs of quantised blocks, byte for byte as ggml's reference.
//!
//! Everything is float32 with one rounding an operation. A scale is stored as float16, and codes are computed with the
//! scale as it was before.
//!
//! # Source
//! ggml's `ggml-quants.c` (`quantize_row_*_ref`, `dequantize_row_*`), by way of the Python package gguf 0.19.0.

use half::f16;

/// Elements of a small block.
const BLOCK: usize = 32;

fn half_at(bytes: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([bytes[at], bytes[at + 1]]).to_f32()
}

/// Scale, then 32 signed bytes: `round(x / scale)`, halves away from zero, the scale being the largest magnitude / 127.
pub(crate) fn encode_q8_0(values: &[f32; BLOCK], bytes: &mut Vec<u8>) {
    let scale = values.iter().fold(0.0_f32, |most, value| most.max(value.abs())) / 127.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    // `as` saturates, and a code is at most 127 anyway.
    bytes.extend(values.iter().map(|value| (value * inverse).round() as i8 as u8));
}

pub(crate) fn decode_q8_0(bytes: &[u8], values: &mut [f32]) {
    let scale = half_at(bytes, 0);
    for (value, code) in values.iter_mut().zip(&bytes[2..]) {
        *value = f32::from(*code as i8) * scale;
    }
}

/// Scale, then 16 bytes: element `i` in the low half of byte `i`, element `i + 16` in the high half. The scale is the value
/// of the largest magnitude / -8, the first of several; a code is `x / scale + 8.5` cut off, at most 15.
pub(crate) fn encode_q4_0(values: &[f32; BLOCK], bytes: &mut Vec<u8>) {
    let mut extreme = 0.0_f32;
    for value in values {
        if value.abs() > extreme.abs() {
            extreme = *value;
        }
    }
    let scale = extreme / -8.0;
    let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
    let code = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    bytes.extend(f16::from_f32(scale).to_le_bytes());
    let (low, high) = values.split_at(BLOCK / 2);
    bytes.extend(low.iter().zip(high).map(|(low, high)| code(*low) | code(*high) << 4));
}

/// Q4_0, or Q4_1 with a least value behind the scale.
pub(crate) fn decode_q4(bytes: &[u8], values: &mut [f32], with_least: bool) {
    let scale = half_at(bytes, 0);
    let (offset, least, codes) = if with_least { (0, half_at(bytes, 2), &bytes[4..]) } else { (8, 0.0, &bytes[2..]) };
    let (low, high) = values.split_at_mut(BLOCK / 2);
    for ((low, high), byte) in low.iter_mut().zip(high).zip(codes) {
        *low = scale * f32::from((byte & 15) as i8 - offset) + least;
        *high = scale * f32::from((byte >> 4) as i8 - offset) + least;
    }
}

/// Q5_0, or Q5_1 with a least value behind the scale: the fifth bits stand in a word before the codes.
pub(crate) fn decode_q5(bytes: &[u8], values: &mut [f32], with_least: bool) {
    let scale = half_at(bytes, 0);
    let (offset, least, rest) = if with_least { (0, half_at(bytes, 2), &bytes[4..]) } else { (16, 0.0, &bytes[2..]) };
    let fifth = u32::from_le_bytes([rest[0], rest[1], rest[2], rest[3]]);
    let (low, high) = values.split_at_mut(BLOCK / 2);
    for (index, ((low, high), byte)) in low.iter_mut().zip(high).zip(&rest[4..]).enumerate() {
        let bit = |at: usize| ((fifth >> at & 1) << 4) as u8;
        *low = scale * f32::from((byte & 15 | bit(index)) as i8 - offset) + least;
        *high = scale * f32::from((byte >> 4 | bit(index + BLOCK / 2)) as i8 - offset) + least;
    }
}

/// Scale and scale of the least values, 12 bytes with eight pairs of 6 bits, 128 bytes of codes.
pub(crate) fn decode_q4_k(bytes: &[u8], values: &mut [f32]) {
    let (scale, least) = (half_at(bytes, 0), half_at(bytes, 2));
    let packed = &bytes[4..16];
    let pair = |index: usize| {
        if index < 4 {
            (packed[index] & 63, packed[index + 4] & 63)
        } else {
            let low = packed[index + 4];
            (low & 15 | packed[index - 4] >> 6 << 4, low >> 4 | packed[index] >> 6 << 4)
        }
    };
    for (index, values) in values.chunks_exact_mut(BLOCK).enumerate() {
        let (step, floor) = pair(index);
        let (step, floor) = (scale * f32::from(step), least * f32::from(floor));
        let codes = &bytes[16 + index / 2 * BLOCK..][..BLOCK];
        for (value, byte) in values.iter_mut().zip(codes) {
            let code = if index.is_multiple_of(2) { byte & 15 } else { byte >> 4 };
            *value = step * f32::from(code) - floor;
        }
    }
}

/// 128 bytes of low halves, 64 of upper bits, 16 signed scales, and the scale of those.
pub(crate) fn decode_q6_k(bytes: &[u8], values: &mut [f32]) {
    let scale = half_at(bytes, 208);
    for (index, value) in values.iter_mut().enumerate() {
        let (part, within) = (index / 128, index % 128);
        let (quarter, lane) = (within / BLOCK, within % BLOCK);
        let low = bytes[part * 64 + lane + (quarter % 2) * BLOCK];
        let low = if quarter < 2 { low & 15 } else { low >> 4 };
        let high = bytes[128 + part * BLOCK + lane] >> (2 * quarter) & 3;
        let step = scale * f32::from(bytes[192 + index / 16] as i8);
        *value = step * f32::from((low | high << 4) as i8 - 32);
    }
}
