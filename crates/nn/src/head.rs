//! The last norm, the head and the loss: only at labelled positions, in chunks; the logits are never whole.
//!
//! Shape suffixes: N labelled positions, C those of a chunk, D width of the residual stream, V vocabulary.
#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_kernels::{
    ops::{Layout, LoraInput, cross_entropy, cross_entropy_gradient, product, product_into},
    upload,
};
use tch::{Device, Tensor};

use crate::{
    Parameter, Precision,
    batch::PackedBatch,
    embedding::Table,
    error::Result,
    norm::{RmsNorm, Stream, StreamGradient},
    parameter::Gradient,
    table_gradient::{Product, TableGradient},
};

/// Logits that are held at once, about: 64 MiB in bfloat16.
const LOGIT_VALUES: usize = 1 << 25;

/// Rows of a chunk are a multiple of this: matrix products come in whole tiles.
const CHUNK_STEP: usize = 256;

/// The head of the model.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) norm: RmsNorm,
    pub(crate) table: Table,
    pub(crate) precision: Precision,
    pub(crate) vocab_size: usize,
}

/// The labelled positions of a pass, on the device.
#[derive(Debug)]
pub(crate) struct Targets {
    /// Rows of the pass, `[N]`.
    rows: Tensor,
    /// What they predict, `[N]`, int32.
    tokens: Tensor,
}

impl Targets {
    /// Uploads the targets; `None` if nothing is labelled.
    pub(crate) fn new(batch: &PackedBatch, device: Device) -> Result<Option<Self>> {
        if batch.targets.is_empty() {
            return Ok(None);
        }
        let tokens: Vec<i32> = batch.targets.iter().map(|target| *target as i32).collect();
        Ok(Some(Self { rows: upload(&batch.label_rows, device)?, tokens: upload(&tokens, device)? }))
    }
}

impl Head {
    /// The negative log-likelihood of each target, `[N]`, in the type of the residual stream.
    pub(crate) fn loss(&self, stream: &Stream, targets: &Targets, parameters: &[Parameter]) -> Result<Tensor> {
        let kind = self.precision.compute();
        let x_ND = self.norm.forward(&labelled(stream, targets)?, self.norm.weight.size()[0], kind)?.x_TC;
        let weight_VD = self.table.matrix(kind, parameters)?;
        let mut losses = Vec::new();
        for (first, length) in self.chunks(0, x_ND.size()[0]) {
            let logits_CV = product(&x_ND.f_narrow(0, first, length)?, &weight_VD.f_tr()?, kind)?;
            losses.push(cross_entropy(&logits_CV, &targets.tokens.f_narrow(0, first, length)?)?.losses_N);
        }
        Ok(Tensor::f_cat(&losses, 0)?)
    }

    /// The same, with the gradient of `sum / count`: that of the residual stream, and, added to its parameter, that of
    /// the head.
    pub(crate) fn loss_backward(
        &self,
        stream: &Stream,
        targets: &Targets,
        count: f64,
        parameters: &mut [Parameter],
    ) -> Result<(Tensor, StreamGradient)> {
        let kind = self.precision.compute();
        let width = self.norm.weight.size()[0];
        let normed = self.norm.forward(&labelled(stream, targets)?, width, kind)?;
        let weight_VD = self.table.matrix(kind, parameters)?;
        let (positions, _) = normed.x_TC.size2()?;
        let dx_ND = Tensor::f_empty_like(&normed.x_TC)?;
        let (mut losses, mut lse) = (Vec::new(), Vec::new());
        // For the gradient of a trained table, that of the logits of so many positions stays: half the memory that the
        // table's gradient would take.
        let kept = match self.gradient(parameters) {
            Some(table) => (width - table.kept_positions()).clamp(0, positions),
            None => 0,
        };
        let kept_KV = Tensor::f_empty([kept, self.vocab_size as i64], (kind, weight_VD.device()))?;
        for (first, length) in self.chunks(0, kept).chain(self.chunks(kept, positions)) {
            let x_CD = normed.x_TC.f_narrow(0, first, length)?;
            let tokens_C = targets.tokens.f_narrow(0, first, length)?;
            let logits_CV = match first < kept {
                true => kept_KV.f_narrow(0, first, length)?,
                false => Tensor::f_empty([length, self.vocab_size as i64], (kind, weight_VD.device()))?,
            };
            product_into(&logits_CV, &x_CD, &weight_VD.f_tr()?, false)?;
            let entropy = cross_entropy(&logits_CV, &tokens_C)?;
            // The logits become their gradient where they lie.
            cross_entropy_gradient(&logits_CV, &tokens_C, &entropy.lse_N, 1.0 / count, 0)?;
            product_into(&dx_ND.f_narrow(0, first, length)?, &logits_CV, &weight_VD, false)?;
            losses.push(entropy.losses_N);
            lse.push(entropy.lse_N);
        }
        drop(weight_VD);
        if let Some(table) = self.gradient(parameters) {
            let lse_N = Tensor::f_cat(&lse, 0)?;
            for (first, end, d_logits_NV) in [(0, kept, Some(kept_KV)), (kept, positions, None)] {
                if first == end {
                    continue;
                }
                let part = |tensor: &Tensor| tensor.f_narrow(0, first, end - first);
                table.add_product(Product {
                    x_ND: part(&normed.x_TC)?,
                    tokens_N: part(&targets.tokens)?,
                    lse_N: part(&lse_N)?,
                    scale: 1.0 / count,
                    d_logits_NV,
                });
            }
        }
        let layout = Layout::new(width, &[], false);
        let input = LoraInput { dx_TC: &dx_ND, layout: &layout, adapters: &[], dropout: None };
        let gradient_ND = self.norm.backward(&input, (&normed.h_TD, &normed.rstd_T), &normed.h_TD.f_zeros_like()?)?;
        let spread = |rows_ND: &Tensor| {
            Tensor::f_zeros([stream.h.size()[0], width], (rows_ND.f_kind()?, rows_ND.device()))?.f_index_copy_(
                0,
                &targets.rows,
                rows_ND,
            )
        };
        let gradient = StreamGradient { exact: spread(&gradient_ND.exact)?, rounded: spread(&gradient_ND.rounded)? };
        Ok((Tensor::f_cat(&losses, 0)?, gradient))
    }

    fn gradient<'a>(&self, parameters: &'a mut [Parameter]) -> Option<&'a mut TableGradient> {
        match &mut parameters[self.table.trained()?].gradient {
            Gradient::Table(table) => Some(table),
            Gradient::Whole(_) => None,
        }
    }

    /// The logits of all rows of the residual stream, in its type: `[T, D]` to `[T, V]`.
    pub(crate) fn logits(&self, stream: &Stream, parameters: &[Parameter]) -> Result<Tensor> {
        let kind = self.precision.compute();
        let x_TD = self.norm.forward(stream, self.norm.weight.size()[0], kind)?.x_TC;
        let weight_VD = self.table.matrix(kind, parameters)?;
        Ok(product(&x_TD, &weight_VD.f_tr()?, kind)?.f_to_kind(self.precision.master())?)
    }

    /// Rows from `begin` to `end` in chunks, as first and number.
    fn chunks(&self, begin: i64, end: i64) -> impl Iterator<Item = (i64, i64)> + use<> {
        let chunk = (LOGIT_VALUES / self.vocab_size.max(1)).max(1).next_multiple_of(CHUNK_STEP);
        (begin..end).step_by(chunk).map(move |first| (first, (chunk as i64).min(end - first)))
    }
}

/// The labelled rows of a residual stream.
fn labelled(stream: &Stream, targets: &Targets) -> Result<Stream> {
    let rows = |tensor: &Tensor| tensor.f_index_select(0, &targets.rows);
    Ok(Stream { h: rows(&stream.h)?, add: stream.add.as_ref().map(rows).transpose()? })
}
