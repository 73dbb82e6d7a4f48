//! Causal attention within each sample, with grouped query heads; and of single tokens over keys that were kept.
//!
//! Shape suffixes: t tokens of a sample, s tokens that are attended to, H query heads, G key heads, M query heads of
//! one key head, d width of a head.
#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_kernels::{Packing, ops};
use tch::{Device, Kind, Tensor};

use crate::{Precision, error::Result};

/// Attention over packed samples.
#[derive(Debug)]
pub(crate) struct Attention {
    precision: Precision,
    scale: f64,
    packing: Packing,
}

/// What each token attends to, and what the backward pass needs of it.
pub(crate) type Attended = ops::Attended;

/// Queries, keys and values: `[T, H, d]`, `[T, G, d]`, `[T, G, d]`, in the type of the computation; rows may lie apart.
#[derive(Debug)]
pub(crate) struct Operands {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

impl Attention {
    /// For samples of these lengths.
    pub(crate) fn new(precision: Precision, head_dim: usize, lengths: &[usize], device: Device) -> Result<Self> {
        let packing = Packing::new(lengths, device)?;
        Ok(Self { precision, scale: (head_dim as f64).powf(-0.5), packing })
    }

    /// The values that each token attends to.
    pub(crate) fn forward(&self, operands: &Operands) -> Result<Attended> {
        Ok(ops::attention(&operands.q, &operands.k, &operands.v, &self.packing, self.scale)?)
    }

    /// The gradients of queries, keys and values, as [`Operands`].
    ///
    /// # Shapes
    /// `dy [T, H*d]`, in the type of the computation.
    pub(crate) fn backward(&self, dy: &Tensor, operands: &Operands, attended: &Attended) -> Result<Operands> {
        let inputs = [&operands.q, &operands.k, &operands.v];
        let [q, k, v] = ops::attention_backward(dy, inputs, attended, &self.packing, self.scale)?;
        Ok(Operands { q, k, v })
    }

    /// Tokens behind the first ones of a sample, `[t, H*d]`: `q [t, H, d]` over `k`, `v [s, G, d]` with `t <= s`.
    pub(crate) fn forward_late(&self, operands: &Operands) -> Result<Tensor> {
        let Operands { q, k, v } = operands;
        let ((tokens, _, width), (keys, groups, _)) = (q.size3()?, k.size3()?);
        let k_Gsd = k.f_transpose(0, 1)?;
        let q_GMtd = q.f_transpose(0, 1)?.f_reshape([groups, -1, width])?;
        let scores = q_GMtd.f_bmm(&k_Gsd.f_transpose(1, 2)?)?.f_to_kind(self.precision.master())?;
        let scores = scores.f_mul_scalar(self.scale)?.f_view([-1, tokens, keys])?;
        // A single token is the latest: nothing is in its future.
        let scores = match tokens > 1 {
            true => {
                let future = Tensor::f_ones([tokens, keys], (Kind::Bool, q.device()))?.f_triu(keys - tokens + 1)?;
                scores.f_masked_fill(&future, f64::NEG_INFINITY)?
            }
            false => scores,
        };
        let p_GMts = scores.f_softmax(-1, None::<Kind>)?.f_to_kind(self.precision.compute())?;
        let y_GMtd = p_GMts.f_view([groups, -1, keys])?.f_bmm(&v.f_transpose(0, 1)?)?;
        Ok(y_GMtd.f_view([-1, tokens, width])?.f_transpose(0, 1)?.f_flatten(1, 2)?)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::random;

    #[test]
    fn later_tokens_over_cached_keys_are_the_same() {
        let operands = Operands { q: random(&[7, 4, 6], 1), k: random(&[7, 2, 6], 2), v: random(&[7, 2, 6], 3) };
        let attention = Attention::new(Precision::Fp64, 6, &[3, 4], Device::Cpu).unwrap();
        let whole = attention.forward(&operands).unwrap().output;
        let part = |tensor: &Tensor, start, length| tensor.narrow(0, start, length);
        for late in 1..=2 {
            let operands = Operands {
                q: part(&operands.q, 7 - late, late),
                k: part(&operands.k, 3, 4),
                v: part(&operands.v, 3, 4),
            };
            let found = attention.forward_late(&operands).unwrap();
            assert!((whole.narrow(0, 7 - late, late) - found).abs().max().double_value(&[]) < 1e-14);
        }
    }
}
