//! A trained tensor and its gradient.

use tch::{Kind, Tensor};

use crate::error::Result;

/// A trained tensor and its gradient, both float32 on the model's device.
#[derive(Debug)]
pub struct Parameter {
    /// PEFT's key: `base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight`. A tied embedding has the
    /// embedding's: `base_model.model.model.embed_tokens.weight`.
    pub name: String,
    /// The weights.
    pub value: Tensor,
    /// The gradient, summed over the passes since [`Model::zero_grad`](crate::Model::zero_grad).
    pub grad: Tensor,
}

impl Parameter {
    /// A parameter with a gradient of zero.
    pub(crate) fn new(name: String, value: Tensor) -> Result<Self> {
        let grad = value.f_zeros_like()?;
        Ok(Self { name, value, grad })
    }

    /// The weights in another type; no copy if they have it.
    pub(crate) fn cast(&self, kind: Kind) -> Result<Tensor> {
        Ok(self.value.f_to_kind(kind)?)
    }

    /// Adds `left^T right` to the gradient.
    ///
    /// # Shapes
    /// `left [rows, m]`, `right [rows, n]`, gradient `[m, n]`.
    pub(crate) fn add_product(&mut self, left: &Tensor, right: &Tensor) -> Result<()> {
        add_product(&mut self.grad, left, right)
    }
}

/// Rows of a gradient that are computed at once where the product needs a temporary of another type.
const PRODUCT_ROWS: i64 = 16_384;

/// `sum += left^T right`, with no temporary of the size of an embedding.
fn add_product(sum: &mut Tensor, left: &Tensor, right: &Tensor) -> Result<()> {
    let left = left.f_tr()?;
    if left.f_kind()? == sum.f_kind()? {
        let _ = sum.f_addmm_(&left, right)?;
        return Ok(());
    }
    let (rows, columns) = left.size2()?;
    let tensor_cores = left.device().is_cuda() && sum.f_kind()? == Kind::Float;
    for first in (0..rows).step_by(PRODUCT_ROWS as usize) {
        let length = PRODUCT_ROWS.min(rows - first);
        let part = left.f_narrow(0, first, length)?;
        debug_assert_eq!(columns, right.size()[0], "rows of both factors");
        // On CUDA the product leaves the tensor cores unrounded; the CPU has no such product.
        let product = if tensor_cores { part.f_mm_dtype(right, Kind::Float)? } else { part.f_mm(right)? };
        let _ = sum.f_narrow(0, first, length)?.f_add_(&product)?;
    }
    Ok(())
}

/// A sum of gradients that come from several places, in the residual stream's type.
#[derive(Debug)]
pub(crate) struct GradientSum {
    kind: Kind,
    sum: Option<Tensor>,
}

impl GradientSum {
    /// An empty sum.
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, sum: None }
    }

    /// Adds a gradient, which nobody else may hold.
    pub(crate) fn add(&mut self, gradient: Tensor) -> Result<()> {
        match &mut self.sum {
            Some(sum) => drop(sum.f_add_(&gradient)?),
            None => self.sum = Some(gradient.f_to_kind(self.kind)?),
        }
        Ok(())
    }

    /// The sum; `None` if nothing was added.
    pub(crate) fn into_inner(self) -> Option<Tensor> {
        self.sum
    }
}
