//! NF4 weights on the device: they stay packed, scales included, and are unpacked one at a time.
//!
//! Bit for bit what `pipe_nf4` computes: one float32 product of code and scale, then one rounding.

use pipe_nf4::{Absmax, CODE_VALUES, NestedAbsmax, QuantizedTensor};
use tch::{Device, Kind, Tensor};

use crate::error::Result;

/// The two values that a byte of codes stands for, as one 64-bit element each, so that one lookup gives both.
#[derive(Debug)]
pub(crate) struct PairTable(Tensor);

impl PairTable {
    pub(crate) fn new(device: Device) -> Result<Self> {
        let pairs: Vec<i64> = (0..=u8::MAX)
            .map(|byte| {
                let low_address = u64::from(CODE_VALUES[usize::from(byte >> 4)].to_bits());
                let high_address = u64::from(CODE_VALUES[usize::from(byte & 15)].to_bits());
                // The project runs on little-endian machines only, as libtorch's CUDA does.
                (high_address << 32 | low_address) as i64
            })
            .collect();
        Ok(Self(Tensor::f_from_slice(&pairs)?.f_to_device(device)?))
    }
}

/// A packed weight, `[out, in]`.
#[derive(Debug)]
pub(crate) struct Nf4Weight {
    shape: [i64; 2],
    /// Values that share a scale.
    block: i64,
    /// Two codes a byte, the first in the high half.
    codes: Tensor,
    scales: Scales,
    pairs: Tensor,
}

#[derive(Debug)]
enum Scales {
    Plain(Tensor),
    /// `map[code] * absmax + offset`
    Nested {
        codes: Tensor,
        map: Tensor,
        absmax: Tensor,
        offset: f64,
        block: i64,
    },
}

impl Nf4Weight {
    /// Moves a two-dimensional weight to the device.
    pub(crate) fn new(tensor: &QuantizedTensor, shape: [i64; 2], pairs: &PairTable, device: Device) -> Result<Self> {
        let bytes =
            |bytes: &[u8]| Tensor::f_from_data_size(bytes, &[bytes.len() as i64], Kind::Uint8)?.f_to_device(device);
        let floats = |values: &[f32]| Tensor::f_from_slice(values)?.f_to_device(device);
        let scales = match tensor.absmax() {
            Absmax::Plain(absmax) => Scales::Plain(floats(absmax)?),
            Absmax::Nested(NestedAbsmax { codes, absmax, offset, map, block }) => Scales::Nested {
                codes: bytes(codes)?,
                map: floats(map)?,
                absmax: floats(absmax)?,
                offset: f64::from(*offset),
                block: *block as i64,
            },
        };
        let codes = bytes(tensor.packed())?;
        Ok(Self { shape, block: tensor.block() as i64, codes, scales, pairs: pairs.0.shallow_clone() })
    }

    /// The weight in `kind`.
    ///
    /// # Shapes
    /// `[out, in]`
    pub(crate) fn dequantise(&self, kind: Kind) -> Result<Tensor> {
        let count = self.shape[0] * self.shape[1];
        let index = self.codes.f_to_kind(Kind::Int)?;
        // An odd count leaves half a byte over.
        let mut values = self.pairs.f_index_select(0, &index)?.f_view_dtype(Kind::Float)?.f_narrow(0, 0, count)?;
        drop(index);
        let scales = self.scales.restore()?;
        if count % self.block == 0 {
            let _ = values.f_view([-1, self.block])?.f_mul_(&scales.f_unsqueeze(1)?)?;
        } else {
            let _ = values.f_mul_(&repeated(&scales, self.block)?.f_narrow(0, 0, count)?)?;
        }
        Ok(values.f_view(self.shape)?.f_to_kind(kind)?)
    }
}

impl Scales {
    /// The scales in float32: a product and a sum, each rounded.
    fn restore(&self) -> Result<Tensor> {
        match self {
            Self::Plain(scales) => Ok(scales.shallow_clone()),
            Self::Nested { codes, map, absmax, offset, block } => {
                let mut scales = map.f_index_select(0, &codes.f_to_kind(Kind::Int)?)?;
                let _ = scales.f_mul_(&repeated(absmax, *block)?.f_narrow(0, 0, codes.size()[0])?)?;
                Ok(scales.f_add_scalar_(*offset)?)
            }
        }
    }
}

/// Every value `times` times.
fn repeated(values: &Tensor, times: i64) -> Result<Tensor> {
    Ok(values.f_unsqueeze(1)?.f_expand([-1, times], false)?.f_flatten(0, 1)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use pipe_nf4::SourceType;

    use super::*;
    use crate::testing::random;

    fn check(shape: [usize; 2], double_quant: bool) {
        let count = shape[0] * shape[1];
        let values = Vec::<f32>::try_from((random(&[count as i64], 1) * 0.02).to_kind(Kind::Float)).unwrap();
        let tensor = QuantizedTensor::quantize(&values, &shape, SourceType::Bfloat16, double_quant).unwrap();
        let table = PairTable::new(Device::Cpu).unwrap();
        let weight = Nf4Weight::new(&tensor, shape.map(|side| side as i64), &table, Device::Cpu).unwrap();
        let ours = weight.dequantise(Kind::Float).unwrap();
        assert_eq!(ours.size(), shape.map(|side| side as i64));
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(Vec::try_from(ours.flatten(0, 1)).unwrap()), bits(tensor.dequantize()), "{shape:?}");
        let rounded = weight.dequantise(Kind::BFloat16).unwrap().to_kind(Kind::Float);
        let expected = tensor.dequantize_bf16().into_iter().map(f32::from).collect();
        assert_eq!(bits(Vec::try_from(rounded.flatten(0, 1)).unwrap()), bits(expected), "{shape:?} bfloat16");
    }

    #[test]
    fn bits_are_those_of_the_codec() {
        for double_quant in [true, false] {
            check([64, 64], double_quant);
            // More than one block of scales, the last one short.
            check([320, 192], double_quant);
            // Blocks across rows, a short last block, an odd count.
            check([3, 50], double_quant);
            check([7, 11], double_quant);
        }
    }
}
