//! RMS norm with a frozen weight.
//!
//! # Source
//! Zhang and Sennrich, arXiv:1910.07467, as Qwen3 computes it.

use tch::{Kind, Tensor};

use crate::error::Result;

/// An RMS norm over the last dimension.
#[derive(Debug)]
pub(crate) struct RmsNorm {
    /// In the type of the residual stream.
    pub(crate) weight: Tensor,
    pub(crate) epsilon: f64,
}

impl RmsNorm {
    /// `w * x / rms(x)`, in the weight's type whatever that of `x`.
    pub(crate) fn forward(&self, x: &Tensor) -> Result<Tensor> {
        let (scaled, _) = self.normalise(x)?;
        Ok(scaled.f_mul(&self.weight)?)
    }

    /// The gradient of the input, in the weight's type: with `n = x r`, `r = 1 / rms(x)`, `g = dy w`:
    /// `dx = r (g - n mean(g n))`.
    pub(crate) fn backward(&self, dy: &Tensor, x: &Tensor) -> Result<Tensor> {
        let (normalised, reciprocal) = self.normalise(x)?;
        let mut gradient = dy.f_mul(&self.weight)?;
        let mean = gradient.f_mul(&normalised)?.f_mean_dim([-1].as_slice(), true, None::<Kind>)?;
        let _ = gradient.f_sub_(&normalised.f_mul(&mean)?)?;
        Ok(gradient.f_mul_(&reciprocal)?)
    }

    /// `x / rms(x)` and `1 / rms(x)`.
    fn normalise(&self, x: &Tensor) -> Result<(Tensor, Tensor)> {
        let x = x.f_to_kind(self.weight.f_kind()?)?;
        let reciprocal =
            x.f_square()?.f_mean_dim([-1].as_slice(), true, None::<Kind>)?.f_add_scalar_(self.epsilon)?.f_rsqrt_()?;
        Ok((x.f_mul(&reciprocal)?, reciprocal))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::{assert_gradient, random};

    #[test]
    fn gradient_agrees_with_finite_differences() {
        let norm = RmsNorm { weight: random(&[6], 1), epsilon: 1e-2 };
        let (x, dy) = (random(&[3, 6], 2), random(&[3, 6], 3));
        let gradient = norm.backward(&dy, &x).unwrap();
        assert_gradient(&x, &gradient, |x| (norm.forward(x).unwrap() * &dy).sum(None::<Kind>).double_value(&[]));
    }
}
