//! Weights of 8 bits with a scale for each row, as LLM.int8 stores them.

use tch::{Device, Kind, TchError, Tensor};

use crate::{Error, ops::check::Check};

/// Values that are quantised at once: what a temporary of theirs takes stays small.
const SLICE_VALUES: i64 = 1 << 24;

/// The largest code.
const MOST: f64 = 127.0;

/// A packed weight. A value is `code * (absmax * (1 / 127))`, in float32.
#[derive(Debug)]
pub struct Int8 {
    /// `[O, I]`, int8.
    pub codes: Tensor,
    /// The largest magnitude of each row, float32, `[O]`.
    pub absmax: Tensor,
}

/// Quantises a weight where it is, byte for byte as bitsandbytes does when it loads a model in 8 bits: rounded to float16
/// first, then row by row `round(w * (1 / absmax * 127))`, ties to even. A row of zeros has codes of 0.
///
/// Waits for the device.
///
/// # Shapes
/// `weight [O, I]`, any floating point type.
///
/// # Errors
/// If a value is NaN or beyond float16's largest, 65504, or the device has no memory.
///
/// # Source
/// Dettmers et al., LLM.int8(), arXiv:2208.07339, section 3; bitsandbytes, `Int8Params` and `int8_vectorwise_quant`.
pub fn quantise_int8(weight: &Tensor) -> Result<Int8, Error> {
    let check = Check { kernel: "quantise_int8", device: weight.device() };
    let (rows, width) =
        weight.size2().map_err(|_| check.wrong(format!("a weight is a matrix, not {:?}", weight.size())))?;
    let codes = Tensor::f_empty([rows, width], (Kind::Int8, check.device))?;
    let absmax = Tensor::f_zeros([rows], (Kind::Float, check.device))?;
    let block = (SLICE_VALUES / width.max(1)).max(1);
    for first in (0..rows).step_by(block as usize).filter(|_| width > 0) {
        let count = block.min(rows - first);
        quantise(
            &weight.f_narrow(0, first, count)?,
            &codes.f_narrow(0, first, count)?,
            &absmax.f_narrow(0, first, count)?,
        )?;
    }
    let finite = Vec::<bool>::try_from(absmax.f_isfinite()?.f_to_device(Device::Cpu)?)?;
    match finite.iter().position(|finite| !finite) {
        Some(row) => Err(check.wrong(format!("a value of row {row} is NaN, or too large for float16"))),
        None => Ok(Int8 { codes, absmax }),
    }
}

fn quantise(weight: &Tensor, codes: &Tensor, absmax: &Tensor) -> Result<(), TchError> {
    let mut values = weight.f_to_kind(Kind::Half)?.f_to_kind(Kind::Float)?;
    let most = values.f_abs()?.f_amax([1].as_slice(), false)?;
    absmax.shallow_clone().f_copy_(&most)?;
    // With two roundings, as libtorch and, but for its approximate reciprocal, the kernel of bitsandbytes have it. That
    // of a row of zeros is infinite.
    let factor = most.f_reciprocal()?.f_mul_scalar(MOST)?;
    let _ = values.f_mul_(&factor.f_unsqueeze(1)?)?.f_round_()?.f_nan_to_num_(0.0, 0.0, 0.0)?;
    codes.shallow_clone().f_copy_(&values)
}

impl Int8 {
    /// `[O, I]`
    pub(super) fn shape(&self) -> [i64; 2] {
        self.codes.size2().map_or([0, 0], |(rows, width)| [rows, width])
    }

    pub(super) fn check(&self, check: &Check) -> Result<(), Error> {
        let [rows, width] = self.shape();
        check.tensor("codes", &self.codes, Kind::Int8, &[rows, width])?;
        check.tensor("absmax", &self.absmax, Kind::Float, &[rows])
    }

    /// The weight in `kind`, by libtorch's operations.
    pub(super) fn reference(&self, kind: Kind) -> Result<Tensor, TchError> {
        let scales = self.absmax.f_mul_scalar(1.0 / MOST)?.f_unsqueeze(1)?;
        self.codes.f_to_kind(Kind::Float)?.f_mul(&scales)?.f_to_kind(kind)
    }
}
