//! Causal attention within each sample, with grouped query heads.
//!
//! On CUDA in bfloat16 this is flash attention; elsewhere plain products, sample by sample. There nothing of the size of
//! a score matrix outlives a sample: the backward pass computes the probabilities again.
//!
//! Shape suffixes: t tokens of a sample, s tokens that are attended to, H query heads, G key heads, M query heads of
//! one key head, d width of a head.
#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_kernels::Packing;
use tch::{Device, Kind, Tensor};

use crate::{Precision, batch::Span, error::Result};

/// Scores that are held at once: 256 MiB in float32. Longer samples go through in groups of heads.
const SCORE_VALUES: usize = 1 << 26;

/// Attention over packed samples.
#[derive(Debug)]
pub(crate) struct Attention {
    precision: Precision,
    scale: f64,
    kernel: Kernel,
}

#[derive(Debug)]
enum Kernel {
    Flash(Packing),
    /// True above the diagonal, `[longest, longest]`.
    Plain {
        future: Tensor,
    },
}

/// What each token attends to, and what the backward pass needs of it.
#[derive(Debug)]
pub(crate) struct Attended {
    /// `[T, H*d]`, in the type of the computation.
    pub(crate) values: Tensor,
    flash: Option<pipe_kernels::Attended>,
}

/// Queries, keys and values: `[T, H, d]`, `[T, G, d]`, `[T, G, d]`, in the type of the computation.
#[derive(Debug)]
pub(crate) struct Operands {
    pub(crate) q: Tensor,
    pub(crate) k: Tensor,
    pub(crate) v: Tensor,
}

impl Operands {
    fn sample(&self, span: &Span) -> Result<Self> {
        let part = |tensor: &Tensor| tensor.f_narrow(0, span.start as i64, span.length as i64);
        Ok(Self { q: part(&self.q)?, k: part(&self.k)?, v: part(&self.v)? })
    }

    /// Some key heads, with their query heads, heads first: `[G, M*t, d]`, `[G, s, d]`, `[G, s, d]`.
    fn heads_first(&self, first: i64, groups: i64) -> Result<Self> {
        let per_group = self.q.size()[1] / self.k.size()[1];
        Ok(Self {
            q: by_group(&self.q, first, groups, per_group)?,
            k: by_group(&self.k, first, groups, 1)?,
            v: by_group(&self.v, first, groups, 1)?,
        })
    }
}

impl Attention {
    /// For these samples.
    pub(crate) fn new(precision: Precision, head_dim: usize, lengths: &[usize], device: Device) -> Result<Self> {
        let kernel = if Packing::takes(device, precision.compute(), head_dim) {
            Kernel::Flash(Packing::new(lengths, device)?)
        } else {
            let longest = lengths.iter().copied().max().unwrap_or(0) as i64;
            Kernel::Plain { future: Tensor::f_ones([longest, longest], (Kind::Bool, device))?.f_triu(1)? }
        };
        Ok(Self { precision, scale: (head_dim as f64).powf(-0.5), kernel })
    }

    /// The values that each token attends to.
    pub(crate) fn forward(&self, operands: &Operands, spans: &[Span]) -> Result<Attended> {
        if let Kernel::Flash(packing) = &self.kernel {
            let Operands { q, k, v } = operands;
            let flash = pipe_kernels::flash_attention(q, k, v, packing, self.scale)?;
            return Ok(Attended { values: flash.output().f_flatten(1, 2)?, flash: Some(flash) });
        }
        let parts = spans.iter().map(|span| self.forward_sample(&operands.sample(span)?));
        Ok(Attended { values: Tensor::f_cat(&parts.collect::<Result<Vec<_>>>()?, 0)?, flash: None })
    }

    /// Tokens behind the first ones of a sample: `q [t, H, d]` over `k`, `v [s, G, d]` with `t <= s`.
    pub(crate) fn forward_sample(&self, operands: &Operands) -> Result<Tensor> {
        let tokens = operands.q.size()[0];
        let mut parts = Vec::new();
        for (first, length) in self.head_blocks(operands) {
            let block = operands.heads_first(first, length)?;
            let p_GMts = self.probabilities(&block, tokens)?.f_to_kind(self.precision.compute())?;
            parts.push(tokens_first(&p_GMts.f_bmm(&block.v)?, tokens)?);
        }
        Ok(Tensor::f_cat(&parts, 1)?.f_flatten(1, 2)?)
    }

    /// The gradients of queries, keys and values, as [`Operands`].
    ///
    /// # Shapes
    /// `dy [T, H*d]`, in the type of the computation.
    pub(crate) fn backward(
        &self,
        dy: &Tensor,
        operands: &Operands,
        attended: &Attended,
        spans: &[Span],
    ) -> Result<Operands> {
        let dy = dy.f_view_as(&operands.q)?;
        if let (Kernel::Flash(packing), Some(flash)) = (&self.kernel, &attended.flash) {
            let inputs = [&operands.q, &operands.k, &operands.v];
            let [q, k, v] = pipe_kernels::flash_attention_backward(&dy, inputs, flash, packing, self.scale)?;
            return Ok(Operands { q, k, v });
        }
        let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
        for span in spans {
            let dy = dy.f_narrow(0, span.start as i64, span.length as i64)?;
            let sample = self.backward_sample(&dy, &operands.sample(span)?)?;
            for (all, part) in gradients.iter_mut().zip([sample.q, sample.k, sample.v]) {
                all.push(part);
            }
        }
        let [q, k, v] = gradients;
        Ok(Operands { q: Tensor::f_cat(&q, 0)?, k: Tensor::f_cat(&k, 0)?, v: Tensor::f_cat(&v, 0)? })
    }

    fn backward_sample(&self, dy: &Tensor, operands: &Operands) -> Result<Operands> {
        let (compute, master) = (self.precision.compute(), self.precision.master());
        let tokens = operands.q.size()[0];
        let per_group = operands.q.size()[1] / operands.k.size()[1];
        let mut gradients = [Vec::new(), Vec::new(), Vec::new()];
        for (first, length) in self.head_blocks(operands) {
            let block = operands.heads_first(first, length)?;
            let dy = by_group(dy, first, length, per_group)?;
            let p = self.probabilities(&block, tokens)?;
            let dv = p.f_to_kind(compute)?.f_transpose(1, 2)?.f_bmm(&dy)?;
            let dp = dy.f_bmm(&block.v.f_transpose(1, 2)?)?.f_to_kind(master)?;
            // Softmax: ds = p (dp - sum(p dp)), times the scale of the scores.
            let ds = Tensor::f_internal_softmax_backward_data(&dp, &p, -1, master)?
                .f_mul_scalar_(self.scale)?
                .f_to_kind(compute)?;
            let dq = ds.f_bmm(&block.k)?;
            let dk = ds.f_transpose(1, 2)?.f_bmm(&block.q)?;
            for (all, part) in gradients.iter_mut().zip([dq, dk, dv]) {
                all.push(tokens_first(&part, tokens)?);
            }
        }
        let [q, k, v] = gradients;
        Ok(Operands { q: Tensor::f_cat(&q, 1)?, k: Tensor::f_cat(&k, 1)?, v: Tensor::f_cat(&v, 1)? })
    }

    /// Softmax of the scaled scores of the past, in the type of the residual stream.
    ///
    /// # Shapes
    /// `[G, M*t, s]`; `block` as [`Operands::heads_first`] gives it.
    fn probabilities(&self, block: &Operands, tokens: i64) -> Result<Tensor> {
        let keys = block.k.size()[1];
        let scores = block
            .q
            .f_bmm(&block.k.f_transpose(1, 2)?)?
            .f_to_kind(self.precision.master())?
            .f_mul_scalar_(self.scale)?;
        // A single token is the latest: nothing is in its future.
        if tokens > 1 {
            let _ =
                scores.f_view([-1, tokens, keys])?.f_masked_fill_(&self.future(tokens, keys)?, f64::NEG_INFINITY)?;
        }
        Ok(scores.f_softmax(-1, None::<Kind>)?)
    }

    /// Which keys are in the future of the last `tokens` tokens, `[tokens, keys]`.
    fn future(&self, tokens: i64, keys: i64) -> Result<Tensor> {
        let first = keys - tokens;
        match &self.kernel {
            Kernel::Plain { future } => Ok(future.f_narrow(0, first, tokens)?.f_narrow(1, 0, keys)?),
            Kernel::Flash(packing) => {
                Ok(Tensor::f_ones([tokens, keys], (Kind::Bool, packing.device()))?.f_triu(first + 1)?)
            }
        }
    }

    /// Blocks of key heads, as first and number, whose scores fit the budget.
    fn head_blocks(&self, operands: &Operands) -> impl Iterator<Item = (i64, i64)> + use<> {
        let (tokens, heads, groups, keys) =
            (operands.q.size()[0], operands.q.size()[1], operands.k.size()[1], operands.k.size()[0]);
        let per_group = (heads / groups.max(1) * tokens).saturating_mul(keys).max(1);
        let block = (SCORE_VALUES as i64 / per_group).clamp(1, groups.max(1));
        (0..groups).step_by(block as usize).map(move |first| (first, block.min(groups - first)))
    }
}

/// `[t, H, d]` to `[groups, per_group * t, d]`.
fn by_group(tensor: &Tensor, first: i64, groups: i64, per_group: i64) -> Result<Tensor> {
    let (tokens, _, width) = tensor.size3()?;
    let heads = tensor.f_narrow(1, first * per_group, groups * per_group)?;
    Ok(heads.f_transpose(0, 1)?.f_reshape([groups, per_group * tokens, width])?)
}

/// `[G, M*t, d]` to `[t, G*M, d]`.
fn tokens_first(tensor: &Tensor, tokens: i64) -> Result<Tensor> {
    let width = tensor.size()[2];
    Ok(tensor.f_view([-1, tokens, width])?.f_transpose(0, 1)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::{assert_gradient, random};

    const SPANS: [Span; 2] = [
        Span { start: 0, length: 3, labels: 0, place: 0, row: 0 },
        Span { start: 3, length: 4, labels: 0, place: 1, row: 1 },
    ];

    fn operands() -> Operands {
        Operands { q: random(&[7, 4, 6], 1), k: random(&[7, 2, 6], 2), v: random(&[7, 2, 6], 3) }
    }

    fn attention() -> Attention {
        Attention::new(Precision::Fp64, 6, &[3, 4], Device::Cpu).unwrap()
    }

    #[test]
    fn gradients_agree_with_finite_differences() {
        let (attention, operands) = (attention(), operands());
        let dy = random(&[7, 24], 4);
        let loss = |operands: &Operands| {
            (attention.forward(operands, &SPANS).unwrap().values * &dy).sum(None::<Kind>).double_value(&[])
        };
        let Operands { q, k, v } = &operands;
        let attended = attention.forward(&operands, &SPANS).unwrap();
        let gradients = attention.backward(&dy, &operands, &attended, &SPANS).unwrap();
        let with = |q: &Tensor, k: &Tensor, v: &Tensor| Operands {
            q: q.shallow_clone(),
            k: k.shallow_clone(),
            v: v.shallow_clone(),
        };
        assert_gradient(q, &gradients.q, |q| loss(&with(q, k, v)));
        assert_gradient(k, &gradients.k, |k| loss(&with(q, k, v)));
        assert_gradient(v, &gradients.v, |v| loss(&with(q, k, v)));
    }

    #[test]
    fn samples_do_not_see_each_other_nor_the_future() {
        let (attention, operands) = (attention(), operands());
        let before = attention.forward(&operands, &SPANS).unwrap().values;
        let _ = operands.k.narrow(0, 2, 1).fill_(9.0);
        let _ = operands.v.narrow(0, 2, 1).fill_(9.0);
        let after = attention.forward(&operands, &SPANS).unwrap().values;
        let same = |row: i64| before.get(row).equal(&after.get(row));
        assert!(same(0) && same(1) && !same(2), "token 2 moved, only it may change");
        assert!((3..7).all(same), "another sample");
    }

    #[test]
    fn later_tokens_over_cached_keys_are_the_same() {
        let (attention, operands) = (attention(), operands());
        let whole = attention.forward(&operands, &SPANS).unwrap().values.narrow(0, 5, 2);
        let part = |tensor: &Tensor, start, length| tensor.narrow(0, start, length);
        let late = Operands { q: part(&operands.q, 5, 2), k: part(&operands.k, 3, 4), v: part(&operands.v, 3, 4) };
        let late = attention.forward_sample(&late).unwrap();
        assert!((whole - late).abs().max().double_value(&[]) < 1e-14);
    }
}
