//! Rotary position embedding, in halves: channel `i` turns with channel `i + d/2`.
//!
//! # Source
//! Su et al., arXiv:2104.09864, in the layout of Llama and Qwen.

use std::sync::Mutex;

use tch::{Device, Tensor};

use crate::{Precision, error::Result};

/// Positions that a table has at least.
const SHORTEST: usize = 512;

/// The rotations of positions from 0, `[positions, d/2]`, in the type of the residual stream, on the device.
#[derive(Debug)]
pub(crate) struct Rope {
    pub(crate) cos: Tensor,
    pub(crate) sin: Tensor,
}

/// The rotations of a model; grows with the longest sample.
#[derive(Debug)]
pub(crate) struct RopeTable {
    head_dim: usize,
    theta: f64,
    precision: Precision,
    device: Device,
    longest: Mutex<Option<Rope>>,
}

impl RopeTable {
    /// For a model; nothing is computed yet.
    pub(crate) fn new(head_dim: usize, theta: f64, precision: Precision, device: Device) -> Self {
        Self { head_dim, theta, precision, device, longest: Mutex::new(None) }
    }

    /// The rotations of at least the first `positions`.
    pub(crate) fn rotations(&self, positions: usize) -> Result<Rope> {
        let mut longest = self.longest.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let known = longest.as_ref().map_or(0, |rope| rope.cos.size()[0] as usize);
        if known < positions {
            *longest = Some(self.compute(positions.next_power_of_two().max(SHORTEST))?);
        }
        match &*longest {
            Some(rope) => Ok(Rope { cos: rope.cos.shallow_clone(), sin: rope.sin.shallow_clone() }),
            None => self.compute(positions),
        }
    }

    /// On the CPU for every device, so that all devices turn by the same angles.
    fn compute(&self, positions: usize) -> Result<Rope> {
        let options = (self.precision.master(), Device::Cpu);
        let exponents =
            Tensor::f_arange_start_step(0, self.head_dim as i64, 2, options)?.f_div_scalar(self.head_dim as f64)?;
        let frequencies = Tensor::f_pow_scalar(self.theta, &exponents)?.f_reciprocal()?;
        let angles = Tensor::f_arange(positions as i64, options)?.f_unsqueeze(1)?.f_mul(&frequencies)?;
        Ok(Rope { cos: angles.f_cos()?.f_to_device(self.device)?, sin: angles.f_sin()?.f_to_device(self.device)? })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn a_longer_table_begins_with_the_shorter_one() {
        let table = RopeTable::new(8, 100.0, Precision::Fp64, Device::Cpu);
        let short = table.rotations(3).unwrap();
        assert_eq!(short.cos.size(), [SHORTEST as i64, 4]);
        let long = table.rotations(SHORTEST + 1).unwrap();
        assert_eq!(long.cos.size(), [2 * SHORTEST as i64, 4]);
        assert!(long.sin.narrow(0, 0, SHORTEST as i64).equal(&short.sin));
        // Channel 1 turns by theta^(-2/8) a position.
        assert!((short.sin.double_value(&[2, 1]) - (2.0 * 100_f64.powf(-0.25)).sin()).abs() < 1e-15);
    }
}
