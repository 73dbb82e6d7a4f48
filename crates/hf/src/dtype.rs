//! Element types: their names in torch, their sizes, widening to float32 and rounding from it.

use half::{bf16, f16};

use crate::Dtype;

/// The name that torch and `config.json` give a floating-point type, without `torch.`.
pub fn torch_name(dtype: Dtype) -> Option<&'static str> {
    match dtype {
        Dtype::F32 => Some("float32"),
        Dtype::BF16 => Some("bfloat16"),
        Dtype::F16 => Some("float16"),
        _ => None,
    }
}

/// The type that torch and `config.json` call `name`, if it is one of the three that weights come in.
pub fn dtype_from_torch_name(name: &str) -> Option<Dtype> {
    match name.strip_prefix("torch.").unwrap_or(name) {
        "float32" | "float" => Some(Dtype::F32),
        "bfloat16" => Some(Dtype::BF16),
        "float16" | "half" => Some(Dtype::F16),
        _ => None,
    }
}

/// The size of one element in bytes; `None` for types smaller than a byte.
pub fn element_bytes(dtype: Dtype) -> Option<usize> {
    let bits = dtype.bitsize();
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Widens little-endian bf16, fp16 or fp32 elements to float32, exactly. `None` for other types, and when the two
/// lengths do not agree.
pub fn widen(dtype: Dtype, bytes: &[u8], values: &mut [f32]) -> Option<()> {
    if element_bytes(dtype)?.checked_mul(values.len())? != bytes.len() {
        return None;
    }
    match dtype {
        Dtype::F32 => {
            for (value, raw) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f32::from_le_bytes(*raw);
            }
        }
        Dtype::BF16 => {
            for (value, raw) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = bf16::from_le_bytes(*raw).to_f32();
            }
        }
        Dtype::F16 => {
            for (value, raw) in values.iter_mut().zip(bytes.as_chunks().0) {
                *value = f16::from_le_bytes(*raw).to_f32();
            }
        }
        _ => return None,
    }
    Some(())
}

/// The first value that would round to infinity in float16. NaN is none.
pub fn beyond_float16(values: &[f32]) -> Option<f32> {
    values.iter().copied().find(|value| value.abs() >= 65520.0)
}

/// Rounds float32 elements to bf16, fp16 or fp32 (to nearest, ties to even), little-endian. `None` for other types.
pub fn narrow(dtype: Dtype, values: &[f32]) -> Option<Vec<u8>> {
    match dtype {
        Dtype::F32 => Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        Dtype::BF16 => Some(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect()),
        Dtype::F16 => Some(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect()),
        _ => None,
    }
}
