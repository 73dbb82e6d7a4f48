//! The types of tensors: sizes, and rounding to them and back.

use half::{bf16, f16};

use crate::quants;

/// How the elements of a tensor are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// float32
    F32,
    /// float16
    F16,
    /// bfloat16
    Bf16,
    /// 8 bits with a float16 scale for 32.
    Q8_0,
    /// 4 bits with a float16 scale for 32.
    Q4_0,
    /// 4 bits with a float16 scale and least value for 32. Read only.
    Q4_1,
    /// 5 bits with a float16 scale for 32. Read only.
    Q5_0,
    /// 5 bits with a float16 scale and least value for 32. Read only.
    Q5_1,
    /// 4 bits with scales of 6 bits for 32, in blocks of 256. Read only.
    Q4K,
    /// 6 bits with scales of 8 bits for 16, in blocks of 256. Read only.
    Q6K,
}

impl TensorType {
    const ALL: [(Self, u32, &'static str); 10] = [
        (Self::F32, 0, "F32"),
        (Self::F16, 1, "F16"),
        (Self::Q4_0, 2, "Q4_0"),
        (Self::Q4_1, 3, "Q4_1"),
        (Self::Q5_0, 6, "Q5_0"),
        (Self::Q5_1, 7, "Q5_1"),
        (Self::Q8_0, 8, "Q8_0"),
        (Self::Q4K, 12, "Q4_K"),
        (Self::Q6K, 14, "Q6_K"),
        (Self::Bf16, 30, "BF16"),
    ];

    /// Its number in a file.
    pub fn id(self) -> u32 {
        Self::ALL.iter().find(|(known, ..)| *known == self).map_or(0, |(_, id, _)| *id)
    }

    /// Its name in ggml.
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(known, ..)| *known == self).map_or("", |(.., name)| *name)
    }

    /// The type of a number in a file, if it is one of these.
    pub fn from_id(id: u32) -> Option<Self> {
        Self::ALL.iter().find(|(_, known, _)| *known == id).map(|(known, ..)| *known)
    }

    /// `general.file_type` of a file whose matrices are of this type: llama.cpp's `LLAMA_FTYPE_MOSTLY_*`.
    pub fn file_type(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q8_0 => 7,
            Self::Q5_0 => 8,
            Self::Q5_1 => 9,
            Self::Q4K => 14,
            Self::Q6K => 18,
            Self::Bf16 => 32,
        }
    }

    /// Elements of a block, which lie in one row.
    pub fn block(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q8_0 | Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 => 32,
            Self::Q4K | Self::Q6K => 256,
        }
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q8_0 => 34,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q4K => 144,
            Self::Q6K => 210,
        }
    }

    /// The bytes of `elements` elements; `None` if they are no whole blocks.
    pub fn bytes(self, elements: usize) -> Option<usize> {
        if !elements.is_multiple_of(self.block()) {
            return None;
        }
        (elements / self.block()).checked_mul(self.block_bytes())
    }

    /// Rounds values, whole blocks of them. `None` for the types that are only read, and for a part of a block.
    pub fn encode(self, values: &[f32]) -> Option<Vec<u8>> {
        let mut bytes = Vec::with_capacity(self.bytes(values.len())?);
        match self {
            Self::F32 => bytes.extend(values.iter().flat_map(|value| value.to_le_bytes())),
            Self::F16 => bytes.extend(values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes())),
            Self::Bf16 => bytes.extend(values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes())),
            Self::Q8_0 => values.as_chunks().0.iter().for_each(|block| quants::encode_q8_0(block, &mut bytes)),
            Self::Q4_0 => values.as_chunks().0.iter().for_each(|block| quants::encode_q4_0(block, &mut bytes)),
            Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q4K | Self::Q6K => return None,
        }
        Some(bytes)
    }

    /// Restores values. `None` if the lengths do not agree.
    pub fn decode(self, bytes: &[u8], values: &mut [f32]) -> Option<()> {
        if self.bytes(values.len())? != bytes.len() {
            return None;
        }
        let blocks = bytes.chunks_exact(self.block_bytes()).zip(values.chunks_exact_mut(self.block()));
        match self {
            Self::F32 => {
                blocks.for_each(|(raw, value)| value[0] = f32::from_le_bytes([raw[0], raw[1], raw[2], raw[3]]))
            }
            Self::F16 => blocks.for_each(|(raw, value)| value[0] = f16::from_le_bytes([raw[0], raw[1]]).to_f32()),
            Self::Bf16 => blocks.for_each(|(raw, value)| value[0] = bf16::from_le_bytes([raw[0], raw[1]]).to_f32()),
            Self::Q8_0 => blocks.for_each(|(raw, values)| quants::decode_q8_0(raw, values)),
            Self::Q4_0 => blocks.for_each(|(raw, values)| quants::decode_q4(raw, values, false)),
            Self::Q4_1 => blocks.for_each(|(raw, values)| quants::decode_q4(raw, values, true)),
            Self::Q5_0 => blocks.for_each(|(raw, values)| quants::decode_q5(raw, values, false)),
            Self::Q5_1 => blocks.for_each(|(raw, values)| quants::decode_q5(raw, values, true)),
            Self::Q4K => blocks.for_each(|(raw, values)| quants::decode_q4_k(raw, values)),
            Self::Q6K => blocks.for_each(|(raw, values)| quants::decode_q6_k(raw, values)),
        }
        Some(())
    }
}
