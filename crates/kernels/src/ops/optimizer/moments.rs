//! The running means of AdamW, in float32 or in 8 bits.

use tch::{Device, Kind, TchError, Tensor};

use crate::{Error, ops::check::Check};

/// Values that share a scale, in 8 bits.
pub(super) const BLOCK: i64 = 256;

/// The running means of the gradient and of its square, of one trained tensor.
#[derive(Debug)]
pub enum Moments {
    /// As they are; float64 where the tensor is, on the CPU.
    Float32 {
        /// Of the gradient, as many values as the tensor.
        mean: Tensor,
        /// Of the squared gradient.
        square: Tensor,
    },
    /// Codes of the dynamic maps, a scale for 256 flat neighbours.
    ///
    /// Of a mean close to zero the sign stays, and of a square the fact that it is above zero.
    ///
    /// # Source
    /// Dettmers et al., 8-bit Optimizers via Block-wise Quantization, arXiv:2110.02861; bitsandbytes,
    /// `kOptimizerStatic8bit2StateBlockwise`.
    EightBit {
        /// uint8, a code a value.
        mean: Tensor,
        /// uint8, a code a value.
        square: Tensor,
        /// float32, the largest magnitude of each block.
        mean_scales: Tensor,
        /// float32, the largest of each block.
        square_scales: Tensor,
        /// float32, `[2, 256]`: the code book of the mean, with a sign, and that of the square, without.
        maps: Tensor,
    },
}

impl Moments {
    /// Zeros for `count` values, in float32 or, on the CPU, float64.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn new(count: i64, kind: Kind, device: Device) -> Result<Self, Error> {
        let zeros = || Tensor::f_zeros([count], (kind, device));
        Ok(Self::Float32 { mean: zeros()?, square: zeros()? })
    }

    /// Zeros for `count` values, in 8 bits.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn eight_bit(count: i64, device: Device) -> Result<Self, Error> {
        let zeros = |count: i64, kind| Tensor::f_zeros([count], (kind, device));
        let blocks = (count + BLOCK - 1) / BLOCK;
        let maps = [dynamic_map(true)?, dynamic_map(false)?];
        Ok(Self::EightBit {
            // The code of 0.
            mean: Tensor::f_full([count], 127, (Kind::Uint8, device))?,
            square: zeros(count, Kind::Uint8)?,
            mean_scales: zeros(blocks, Kind::Float)?,
            square_scales: zeros(blocks, Kind::Float)?,
            maps: Tensor::f_stack(&maps, 0)?.f_to_device(device)?,
        })
    }

    /// Checks them, and gives those of `count` values from `first` on, flat, sharing the memory.
    pub(super) fn slice(&self, check: &Check, total: i64, first: i64, count: i64, master: Kind) -> Result<Self, Error> {
        let part = |name, tensor: &Tensor, kind, total, first, count| {
            check.tensor(name, tensor, kind, &tensor.size())?;
            let values = tensor.numel() as i64;
            check.require(values == total, || format!("{name} must have {total} values, it has {values}"))?;
            Ok::<_, Error>(tensor.f_view(-1)?.f_narrow(0, first, count)?)
        };
        match self {
            Self::Float32 { mean, square } => Ok(Self::Float32 {
                mean: part("mean", mean, master, total, first, count)?,
                square: part("square", square, master, total, first, count)?,
            }),
            Self::EightBit { mean, square, mean_scales, square_scales, maps } => {
                let whole = first % BLOCK == 0 && (count % BLOCK == 0 || first + count == total);
                check.require(whole, || format!("values {first} to {} are no whole blocks", first + count))?;
                check.require(master == Kind::Float, || "states in 8 bits are for float32".to_owned())?;
                check.tensor("maps", maps, Kind::Float, &[2, 256])?;
                let blocks = |count: i64| (count + BLOCK - 1) / BLOCK;
                let scales =
                    |name, tensor| part(name, tensor, Kind::Float, blocks(total), blocks(first), blocks(count));
                Ok(Self::EightBit {
                    mean: part("mean", mean, Kind::Uint8, total, first, count)?,
                    square: part("square", square, Kind::Uint8, total, first, count)?,
                    mean_scales: scales("mean_scales", mean_scales)?,
                    square_scales: scales("square_scales", square_scales)?,
                    maps: maps.shallow_clone(),
                })
            }
        }
    }
}

/// The 256 values of a dynamic map (7 exponent bits of 8), ascending, on the CPU.
///
/// # Source
/// bitsandbytes, `create_dynamic_map(signed, max_exponent_bits=7, total_bits=8)`.
fn dynamic_map(signed: bool) -> Result<Tensor, TchError> {
    let mut values = vec![Tensor::f_from_slice(&[0.0_f32, 1.0])?];
    for exponent in 0..7 {
        let steps = (1_i64 << exponent) * if signed { 1 } else { 2 };
        let bounds = Tensor::f_linspace(0.1, 1.0, steps + 1, (Kind::Float, Device::Cpu))?;
        let means = bounds.f_narrow(0, 0, steps)?.f_add(&bounds.f_narrow(0, 1, steps)?)?.f_div_scalar(2.0)?;
        let scale = 10.0_f64.powi(exponent - 6);
        values.push(means.f_mul_scalar(scale)?);
        if signed {
            values.push(means.f_mul_scalar(-scale)?);
        }
    }
    Ok(Tensor::f_cat(&values, 0)?.f_sort(0, false)?.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn the_maps_are_those_of_bitsandbytes() {
        let bits = |map: Tensor| Vec::<f32>::try_from(map).unwrap().into_iter().map(f32::to_bits).collect::<Vec<_>>();
        assert_eq!(bits(dynamic_map(true).unwrap()), pipe_nf4::DYNAMIC_MAP.map(f32::to_bits));
        let squares = Vec::<f32>::try_from(dynamic_map(false).unwrap()).unwrap();
        assert_eq!((squares.len(), squares[0], squares[255]), (256, 0.0, 1.0));
        assert!(squares.is_sorted_by(|left, right| left < right));
        // The halves of [0.1, 1] in two, a millionth of them; the last of 128 parts of it.
        assert!((squares[1] - 3.25e-7).abs() < 1e-13 && (squares[2] - 7.75e-7).abs() < 1e-13);
        assert!((squares[254] - (1.0 - 0.45 / 128.0)).abs() < 1e-6);
    }
}
