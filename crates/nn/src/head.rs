//! The last norm, the head and the loss: only at labelled positions, in chunks; the logits are never whole.
//!
//! Shape suffixes: N labelled positions, C those of a chunk, D width of the residual stream, V vocabulary.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::{Device, Kind, Tensor};

use crate::{Parameter, Precision, batch::PackedBatch, embedding::Table, error::Result, norm::RmsNorm};

/// Logits that are held at once: 256 MiB in float32.
const LOGIT_VALUES: usize = 1 << 26;

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
    /// What they predict, `[N, 1]`.
    tokens: Tensor,
}

impl Targets {
    /// Uploads the targets; `None` if nothing is labelled.
    pub(crate) fn new(batch: &PackedBatch, device: Device) -> Result<Option<Self>> {
        if batch.targets.is_empty() {
            return Ok(None);
        }
        let rows = Tensor::f_from_slice(&batch.label_rows)?.f_to_device(device)?;
        let tokens = Tensor::f_from_slice(&batch.targets)?.f_unsqueeze(1)?.f_to_device(device)?;
        Ok(Some(Self { rows, tokens }))
    }
}

impl Head {
    /// The negative log-likelihood of each target, `[N]`, in the type of the residual stream.
    pub(crate) fn loss(&self, h_TD: &Tensor, targets: &Targets, parameters: &[Parameter]) -> Result<Tensor> {
        let x_ND = self.input(&h_TD.f_index_select(0, &targets.rows)?)?;
        let weight_VD = self.table.matrix(self.precision.compute(), parameters)?;
        let mut losses = Vec::new();
        for (first, length) in self.chunks(x_ND.size()[0]) {
            let logits_CV = self.product(&x_ND.f_narrow(0, first, length)?, &weight_VD)?;
            let target_C1 = targets.tokens.f_narrow(0, first, length)?;
            losses.push(likelihood(&logits_CV, &target_C1)?.0);
        }
        Ok(Tensor::f_cat(&losses, 0)?.f_squeeze_dim(1)?)
    }

    /// The same, with the gradient of `sum / count`: that of the residual stream, `[T, D]`, and, added to its
    /// parameter, that of the head.
    pub(crate) fn loss_backward(
        &self,
        h_TD: &Tensor,
        targets: &Targets,
        count: f64,
        parameters: &mut [Parameter],
    ) -> Result<(Tensor, Tensor)> {
        let compute = self.precision.compute();
        let h_ND = h_TD.f_index_select(0, &targets.rows)?;
        let x_ND = self.input(&h_ND)?;
        let weight_VD = self.table.matrix(compute, parameters)?;
        let (mut losses, mut dx) = (Vec::new(), Vec::new());
        for (first, length) in self.chunks(x_ND.size()[0]) {
            let x_CD = x_ND.f_narrow(0, first, length)?;
            let target_C1 = targets.tokens.f_narrow(0, first, length)?;
            let mut logits_CV = self.product(&x_CD, &weight_VD)?;
            let (loss_C1, normaliser_C1) = likelihood(&logits_CV, &target_C1)?;
            losses.push(loss_C1);
            // d loss / d logits = (softmax - one at the target) / count
            let mut d_logits_CV = logits_CV.f_sub_(&normaliser_C1)?.f_exp_()?;
            let at_target_C1 = d_logits_CV.f_gather(1, &target_C1, false)?.f_sub_scalar_(1.0)?;
            let d_logits_CV =
                d_logits_CV.f_scatter_(1, &target_C1, &at_target_C1)?.f_mul_scalar_(1.0 / count)?.f_to_kind(compute)?;
            dx.push(d_logits_CV.f_mm(&weight_VD)?);
            if let Some(index) = self.table.trained() {
                parameters[index].add_product(&d_logits_CV, &x_CD)?;
            }
        }
        drop(weight_VD);
        let dx_ND = Tensor::f_cat(&dx, 0)?.f_to_kind(self.precision.master())?;
        let dh_TD = h_TD.f_zeros_like()?.f_index_copy_(0, &targets.rows, &self.norm.backward(&dx_ND, &h_ND)?)?;
        Ok((Tensor::f_cat(&losses, 0)?.f_squeeze_dim(1)?, dh_TD))
    }

    /// The logits of some rows of the residual stream, in its type: `[rows, D]` to `[rows, V]`.
    pub(crate) fn logits(&self, h: &Tensor, parameters: &[Parameter]) -> Result<Tensor> {
        self.product(&self.input(h)?, &self.table.matrix(self.precision.compute(), parameters)?)
    }

    fn input(&self, h: &Tensor) -> Result<Tensor> {
        Ok(self.norm.forward(h)?.f_to_kind(self.precision.compute())?)
    }

    fn product(&self, x: &Tensor, weight_VD: &Tensor) -> Result<Tensor> {
        Ok(x.f_mm(&weight_VD.f_tr()?)?.f_to_kind(self.precision.master())?)
    }

    fn chunks(&self, rows: i64) -> impl Iterator<Item = (i64, i64)> + use<> {
        let chunk = (LOGIT_VALUES / self.vocab_size.max(1)).max(1) as i64;
        (0..rows).step_by(chunk as usize).map(move |first| (first, chunk.min(rows - first)))
    }
}

/// The negative log-likelihood of the targets and the logarithm of the sum of exponentials, both `[C, 1]`.
fn likelihood(logits_CV: &Tensor, target_C1: &Tensor) -> Result<(Tensor, Tensor)> {
    let normaliser_C1 = logits_CV.f_logsumexp([1].as_slice(), true)?;
    let loss_C1 = normaliser_C1.f_sub(&logits_CV.f_gather(1, target_C1, false)?)?;
    Ok((loss_C1, normaliser_C1))
}

/// The losses as float64 on the host: the one wait for the device of a pass.
pub(crate) fn read_back(losses_N: &Tensor) -> Result<Vec<f64>> {
    let losses_N = losses_N.f_to_device(Device::Cpu)?.f_to_kind(Kind::Double)?;
    let mut values = vec![0.0; losses_N.numel()];
    losses_N.f_copy_data(&mut values, losses_N.numel())?;
    Ok(values)
}
