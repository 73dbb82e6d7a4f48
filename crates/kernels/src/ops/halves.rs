//! A trained table as two halves of its float32 words: the upper one is the bfloat16 table that matrix products read,
//! so that no rounded copy of it is needed.

use tch::{Device, Kind, TchError, Tensor};

use super::check::Check;
use crate::Error;

/// Values that are taken at once: what bounds the temporaries.
const SLICE_VALUES: i64 = 1 << 24;
/// The bit that makes a bfloat16 of the upper half of a NaN a NaN.
const QUIET: i64 = 0x40;

/// A float32 table `[V, D]`, in two.
///
/// `(bits of high << 16) + low` are the bits of the float32 value. `high` is the value rounded to the nearest bfloat16,
/// ties away from zero; of a value just below the largest it is infinite. A NaN keeps no bits but stays one.
#[derive(Debug)]
pub struct Halves {
    /// bfloat16, `[V, D]`, contiguous.
    pub high: Tensor,
    /// int16, `[V, D]`, contiguous.
    pub low: Tensor,
}

impl Halves {
    /// A table of zeros, to be written in slices.
    ///
    /// # Errors
    /// If the device has no memory for it.
    pub fn zeros(shape: [i64; 2], device: Device) -> Result<Self, Error> {
        let half = |kind| Tensor::f_zeros(shape, (kind, device));
        Ok(Self { high: half(Kind::BFloat16)?, low: half(Kind::Int16)? })
    }

    /// Splits a table.
    ///
    /// # Shapes
    /// `values [V, D]`, float32.
    ///
    /// # Errors
    /// If it is another type or no matrix, or the device has no memory for it.
    pub fn split(values: &Tensor) -> Result<Self, Error> {
        let shape = values.size2().map_err(|_| wrong(values, format!("{:?} is no matrix", values.size())))?;
        let mut halves = Self::zeros(shape.into(), values.device())?;
        halves.write(0, values)?;
        Ok(halves)
    }

    /// Rows of the table in float32.
    ///
    /// # Shapes
    /// The result is `[rows, D]`.
    ///
    /// # Errors
    /// If there are no such rows, or the device has no memory for them.
    pub fn join(&self, first_row: i64, rows: i64) -> Result<Tensor, Error> {
        let width = self.check(first_row, rows)?;
        let out = Tensor::f_empty([rows, width], (Kind::Float, self.high.device()))?;
        for (first, count) in slices(rows, width) {
            let high = self.high.f_narrow(0, first_row + first, count)?.f_view_dtype(Kind::Int16)?;
            let low = self.low.f_narrow(0, first_row + first, count)?;
            let upper = high.f_sub(&low.f_lt(0)?.f_to_kind(Kind::Int16)?)?;
            let pairs = Tensor::f_stack(&[&low, &upper], 2)?.f_view([count, 2 * width])?;
            out.f_narrow(0, first, count)?.f_copy_(&pairs.f_view_dtype(Kind::Float)?)?;
        }
        Ok(out)
    }

    /// Writes rows of the table.
    ///
    /// # Shapes
    /// `values [rows, D]`, float32.
    ///
    /// # Errors
    /// If they do not fit, or the device has no memory for temporaries.
    pub fn write(&mut self, first_row: i64, values: &Tensor) -> Result<(), Error> {
        let rows = values.size().first().copied().unwrap_or_default();
        let width = self.check(first_row, rows)?;
        let fits = values.kind() == Kind::Float && values.size() == [rows, width];
        check(values)
            .require(fits, || format!("{:?} {:?} is no float32 [rows, {width}]", values.kind(), values.size()))?;
        for (first, count) in slices(rows, width) {
            let (high, low) = split(&values.f_narrow(0, first, count)?)?;
            let narrow = |half: &Tensor| half.f_narrow(0, first_row + first, count);
            narrow(&self.high)?.f_view_dtype(Kind::Int16)?.f_copy_(&high)?;
            narrow(&self.low)?.f_copy_(&low)?;
        }
        Ok(())
    }

    /// The width of the table, if it is one and has these rows.
    fn check(&self, first_row: i64, rows: i64) -> Result<i64, Error> {
        let check = check(&self.high);
        let shape: [i64; 2] = self.high.size2().map_err(|_| check.wrong("high is no matrix".to_owned()))?.into();
        check.tensor("high", &self.high, Kind::BFloat16, &shape)?;
        check.tensor("low", &self.low, Kind::Int16, &shape)?;
        let inside = first_row >= 0 && rows >= 0 && rows <= shape[0] && first_row <= shape[0] - rows;
        check.require(inside, || format!("rows {first_row} to {} of {}", first_row + rows, shape[0]))?;
        Ok(shape[1])
    }
}

/// The halves of a slice, both int16.
fn split(values: &Tensor) -> Result<(Tensor, Tensor), TchError> {
    let (rows, width) = values.size2()?;
    // The project runs on little-endian machines only: the lower half comes first.
    let pairs = values.f_contiguous()?.f_view_dtype(Kind::Int16)?.f_view([rows, width, 2])?;
    let (low, upper) = (pairs.f_select(2, 0)?, pairs.f_select(2, 1)?);
    // A lower half from 0x8000 on is negative as an int16: one more above makes up for it, and is the rounding.
    let high = upper.f_add(&low.f_lt(0)?.f_to_kind(Kind::Int16)?)?;
    // The same addition may carry a NaN into the sign bit.
    let nan = values.f_isnan()?;
    let quiet = upper.f_bitwise_or(QUIET)?;
    Ok((quiet.f_where_self(&nan, &high)?, low.f_masked_fill(&nan, 0)?))
}

/// Slices of rows: where each begins, and how many it has.
fn slices(rows: i64, width: i64) -> impl Iterator<Item = (i64, i64)> {
    let step = (SLICE_VALUES / width.max(1)).max(1);
    (0..rows).step_by(step as usize).map(move |first| (first, step.min(rows - first)))
}

fn check(tensor: &Tensor) -> Check {
    Check { kernel: "halves", device: tensor.device() }
}

fn wrong(tensor: &Tensor, problem: String) -> Error {
    check(tensor).wrong(problem)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::{cuda, normal};

    fn devices() -> Vec<Device> {
        [Some(Device::Cpu), cuda()].into_iter().flatten().collect()
    }

    fn bits(values: &Tensor) -> Vec<i32> {
        Vec::try_from(values.to_device(Device::Cpu).view_dtype(Kind::Int).flatten(0, -1)).unwrap()
    }

    #[test]
    fn a_split_loses_nothing() {
        for device in devices() {
            // Every exponent and sign, and the lower halves around where the rounding turns.
            let lower = [0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF];
            let words: Vec<i32> = (0..=u16::MAX)
                .step_by(13)
                .flat_map(|upper| lower.map(|lower| (u32::from(upper) << 16 | lower) as i32))
                .filter(|word| !f32::from_bits(*word as u32).is_nan())
                .collect();
            let values = Tensor::from_slice(&words).view_dtype(Kind::Float).view([-1, 2]).to_device(device);
            let halves = Halves::split(&values).unwrap();
            assert_eq!(bits(&halves.join(0, values.size()[0]).unwrap()), words);
            // A loop over the words, with the rounding written out.
            let expected: Vec<i32> =
                words.iter().map(|word| (*word as u32).wrapping_add(0x8000) as i32 >> 16).collect();
            let high = halves.high.view_dtype(Kind::Int16).to_kind(Kind::Int).flatten(0, -1).to_device(Device::Cpu);
            assert_eq!(Vec::<i32>::try_from(high).unwrap(), expected);
        }
    }

    #[test]
    fn rows_are_read_and_written() {
        for device in devices() {
            let values = normal(&[7, 5], 1).to_device(device);
            let mut halves = Halves::split(&values).unwrap();
            assert_eq!(bits(&halves.join(2, 3).unwrap()), bits(&values.narrow(0, 2, 3)));
            // A slice whose columns are part of longer rows.
            let others = normal(&[2, 8], 2).to_device(device).narrow(1, 1, 5);
            halves.write(4, &others).unwrap();
            values.narrow(0, 4, 2).copy_(&others);
            assert_eq!(bits(&halves.join(0, 7).unwrap()), bits(&values));
            assert_eq!(halves.join(7, 0).unwrap().size(), [0, 5]);
        }
    }

    #[test]
    fn what_is_not_finite_stays_so() {
        for device in devices() {
            let words = [0x7FFF_FFFF, 0x7F80_0001, -1, 0x7FC0_0000, 0x7F80_0000, 0x7F80_0000 | i32::MIN];
            let values = Tensor::from_slice(&words).view_dtype(Kind::Float).view([2, 3]).to_device(device);
            let halves = Halves::split(&values).unwrap();
            for found in [halves.join(0, 2).unwrap(), halves.high.to_kind(Kind::Float)] {
                let found = Vec::<f32>::try_from(found.to_device(Device::Cpu).flatten(0, -1)).unwrap();
                assert!(found[..4].iter().all(|value| value.is_nan()), "{found:?}");
                assert_eq!(found[4..], [f32::INFINITY, f32::NEG_INFINITY]);
            }
        }
    }

    #[test]
    fn operands_are_checked() {
        let mut halves = Halves::split(&normal(&[4, 3], 1)).unwrap();
        assert!(halves.join(2, 3).unwrap_err().to_string().contains("rows 2 to 5 of 4"));
        assert!(halves.write(0, &normal(&[2, 4], 1)).unwrap_err().to_string().contains("no float32 [rows, 3]"));
        assert!(Halves::split(&normal(&[4], 1)).unwrap_err().to_string().contains("[4] is no matrix"));
        halves.low = normal(&[4, 3], 1);
        assert!(halves.join(0, 1).unwrap_err().to_string().contains("low must be Int16 on Cpu, it is Float"));
    }
}
