//! NF4 weights on the device: codes and scales stay packed.

use pipe_nf4::{Absmax, CODE_VALUES, NestedAbsmax, QuantizedTensor};
use tch::{Device, Kind, TchError, Tensor};

use crate::{Error, fill_tensor, upload};

/// A packed weight.
#[derive(Debug)]
pub struct Nf4 {
    /// `[O, I]`
    pub shape: [i64; 2],
    /// Values that share a scale; blocks run over the flat weight.
    pub block: i64,
    /// Two codes a byte, the first in the high half, uint8.
    pub codes: Tensor,
    /// A scale a block.
    pub scales: Scales,
}

/// The scales of the blocks of a packed weight.
#[derive(Debug)]
pub enum Scales {
    /// float32, `[blocks]`.
    Plain(Tensor),
    /// `map[code] * absmax + offset`, with two roundings.
    Nested {
        /// uint8, `[blocks]`.
        codes: Tensor,
        /// float32, `[256]`.
        map: Tensor,
        /// A scale for `block` scales, float32.
        absmax: Tensor,
        /// What is added to all of them.
        offset: f32,
        /// Scales that share a scale.
        block: i64,
    },
}

impl Nf4 {
    /// Moves a weight to the device.
    ///
    /// # Errors
    /// If the tensor does not have the elements of the shape, or the device has no memory for it.
    pub fn new(tensor: &QuantizedTensor, shape: [i64; 2], device: Device) -> Result<Self, Error> {
        let bytes = |bytes: &[u8]| {
            fill_tensor(&[bytes.len() as i64], Kind::Uint8, device, |first, part| {
                part.copy_from_slice(&bytes[first as usize..][..part.len()]);
                Ok::<(), Error>(())
            })
        };
        let floats = |values: &[f32]| upload(values, device);
        if shape.iter().product::<i64>() != tensor.elements() as i64 {
            let problem = format!("a weight of {} elements is not {shape:?}", tensor.elements());
            return Err(Error::Operands { kernel: "weight", problem });
        }
        let scales = match tensor.absmax() {
            Absmax::Plain(absmax) => Scales::Plain(floats(absmax)?),
            Absmax::Nested(NestedAbsmax { codes, absmax, offset, map, block }) => Scales::Nested {
                codes: bytes(codes)?,
                map: floats(map)?,
                absmax: floats(absmax)?,
                offset: *offset,
                block: *block as i64,
            },
        };
        Ok(Self { shape, block: tensor.block() as i64, codes: bytes(tensor.packed())?, scales })
    }

    /// The weight in `kind`, by libtorch's operations.
    pub(super) fn reference(&self, kind: Kind) -> Result<Tensor, TchError> {
        let count = self.shape[0] * self.shape[1];
        let high = self.codes.f_floor_divide_scalar(16)?;
        let low = self.codes.f_bitwise_and(15)?;
        // An odd count leaves half a byte over.
        let codes = Tensor::f_stack(&[high, low], 1)?.f_flatten(0, 1)?.f_narrow(0, 0, count)?.f_to_kind(Kind::Int)?;
        let table = Tensor::f_from_slice(&CODE_VALUES)?.f_to_device(self.codes.device())?;
        let mut values = table.f_index_select(0, &codes)?;
        let scales = self.scales.restore()?;
        if count % self.block == 0 {
            let _ = values.f_view([-1, self.block])?.f_mul_(&scales.f_unsqueeze(1)?)?;
        } else {
            let _ = values.f_mul_(&repeated(&scales, self.block)?.f_narrow(0, 0, count)?)?;
        }
        values.f_view(self.shape)?.f_to_kind(kind)
    }
}

impl Scales {
    /// The scales in float32: a product and a sum, each rounded.
    fn restore(&self) -> Result<Tensor, TchError> {
        match self {
            Self::Plain(scales) => Ok(scales.shallow_clone()),
            Self::Nested { codes, map, absmax, offset, block } => {
                let mut scales = map.f_index_select(0, &codes.f_to_kind(Kind::Int)?)?;
                let _ = scales.f_mul_(&repeated(absmax, *block)?.f_narrow(0, 0, codes.size1()?)?)?;
                scales.f_add_scalar_(f64::from(*offset))
            }
        }
    }
}

/// Every value `times` times.
fn repeated(values: &Tensor, times: i64) -> Result<Tensor, TchError> {
    values.f_unsqueeze(1)?.f_expand([-1, times], false)?.f_flatten(0, 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use pipe_nf4::SourceType;

    use super::*;
    use crate::testing::normal;

    fn check(shape: [usize; 2], double_quant: bool) {
        let values = normal(&[(shape[0] * shape[1]) as i64], 1) * 0.02;
        let values = Vec::<f32>::try_from(values).unwrap();
        let tensor = QuantizedTensor::quantize(&values, &shape, SourceType::Bfloat16, double_quant).unwrap();
        let weight = Nf4::new(&tensor, shape.map(|side| side as i64), Device::Cpu).unwrap();
        let ours = weight.reference(Kind::Float).unwrap();
        assert_eq!(ours.size(), shape.map(|side| side as i64));
        let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(Vec::try_from(ours.flatten(0, 1)).unwrap()), bits(tensor.dequantize()), "{shape:?}");
        let rounded = weight.reference(Kind::BFloat16).unwrap().to_kind(Kind::Float);
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

    #[test]
    fn the_shape_must_fit() {
        let tensor = QuantizedTensor::quantize(&[0.5; 6], &[2, 3], SourceType::Float32, false).unwrap();
        let message = Nf4::new(&tensor, [2, 4], Device::Cpu).unwrap_err().to_string();
        assert!(message.contains("a weight of 6 elements is not [2, 4]"), "{message}");
    }
}
