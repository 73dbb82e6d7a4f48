//! Rotary position embedding, in halves: channel `i` turns with channel `i + d/2`.
//!
//! # Source
//! Su et al., arXiv:2104.09864, in the layout of Llama and Qwen.

use tch::{Device, Tensor};

use crate::{Precision, error::Result};

/// The rotations of the positions of one pass, `[tokens, 1, d/2]`, in the type of the residual stream.
#[derive(Debug)]
pub(crate) struct Rope {
    cos: Tensor,
    sin: Tensor,
}

impl Rope {
    /// The rotations for `positions`, a host or device tensor of integers.
    pub(crate) fn new(
        positions: &Tensor,
        head_dim: usize,
        theta: f64,
        precision: Precision,
        device: Device,
    ) -> Result<Self> {
        let master = precision.master();
        // On the CPU for every device, so that all devices turn by the same angles.
        let exponents =
            Tensor::f_arange_start_step(0, head_dim as i64, 2, (master, Device::Cpu))?.f_div_scalar(head_dim as f64)?;
        let frequencies = Tensor::f_pow_scalar(theta, &exponents)?.f_reciprocal()?;
        let angles = positions
            .f_to_device(Device::Cpu)?
            .f_to_kind(master)?
            .f_unsqueeze(1)?
            .f_mul(&frequencies)?
            .f_unsqueeze(1)?;
        Ok(Self { cos: angles.f_cos()?.f_to_device(device)?, sin: angles.f_sin()?.f_to_device(device)? })
    }

    /// Turns every head.
    ///
    /// # Shapes
    /// `x [tokens, heads, d]`; the same.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (first, second) = halves(x)?;
        let turned_first = first.f_mul(&self.cos)?.f_sub_(&second.f_mul(&self.sin)?)?;
        let turned_second = second.f_mul(&self.cos)?.f_add_(&first.f_mul(&self.sin)?)?;
        Ok(Tensor::f_cat(&[turned_first, turned_second], -1)?)
    }

    /// The gradient of the input: the rotation back.
    pub(crate) fn backward(&self, dy: &Tensor) -> Result<Tensor> {
        let (first, second) = halves(dy)?;
        let back_first = first.f_mul(&self.cos)?.f_add_(&second.f_mul(&self.sin)?)?;
        let back_second = second.f_mul(&self.cos)?.f_sub_(&first.f_mul(&self.sin)?)?;
        Ok(Tensor::f_cat(&[back_first, back_second], -1)?)
    }
}

fn halves(x: &Tensor) -> Result<(Tensor, Tensor)> {
    let half = x.size().last().copied().unwrap_or(0) / 2;
    Ok((x.f_narrow(-1, 0, half)?, x.f_narrow(-1, half, half)?))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use tch::Kind;

    use super::*;
    use crate::testing::{assert_gradient, random};

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let rope = Rope::new(&Tensor::from_slice(&[0_i64, 1, 5]), 8, 100.0, Precision::Fp64, Device::Cpu).unwrap();
        let (x, dy) = (random(&[3, 2, 8], 1), random(&[3, 2, 8], 2));
        let gradient = rope.backward(&dy).unwrap();
        assert_gradient(&x, &gradient, |x| (rope.forward(x).unwrap() * &dy).sum(None::<Kind>).double_value(&[]));
    }

    #[test]
    fn scores_depend_on_distance_alone() {
        let vectors = random(&[1, 1, 8], 3);
        let turn = |position: i64| {
            Rope::new(&Tensor::from_slice(&[position]), 8, 100.0, Precision::Fp64, Device::Cpu)
                .unwrap()
                .forward(&vectors)
                .unwrap()
        };
        let score = |left: i64, right: i64| (turn(left) * turn(right)).sum(None::<Kind>).double_value(&[]);
        assert!((score(3, 1) - score(12, 10)).abs() < 1e-12);
        assert!((score(3, 1) - score(3, 2)).abs() > 1e-3);
    }
}
