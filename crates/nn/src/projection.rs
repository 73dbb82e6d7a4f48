//! The linear layers that share an input, as one matrix product: frozen weights, adapters and biases together.
//!
//! See `pipe_kernels::ops::Layout` for how adapters and biases ride along.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, C columns of an augmented input, O width out")]

use pipe_kernels::ops::{
    Adapter, AdapterGradients, Layout, LoraInput, Weight, lora_down, lora_gradients, materialise, product, product_into,
};
use tch::{Kind, Tensor};

use crate::{Parameter, decoder::Pass, error::Result, lora::Lora};

/// Linear layers that share an input.
#[derive(Debug)]
pub(crate) struct Projection {
    parts: Vec<Part>,
    layout: Layout,
    /// See [`Projection::keep_matrix`].
    kept: Option<Tensor>,
}

/// One of them.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) weight: Weight,
    /// `[O]`, frozen, in the type of the computation.
    pub(crate) bias: Option<Tensor>,
    pub(crate) lora: Option<Lora>,
    /// Its number among the linear layers of the model, for dropout.
    pub(crate) module: u32,
}

impl Projection {
    /// Of `parts`, at least one, all of the same width in.
    pub(crate) fn new(parts: Vec<Part>) -> Self {
        let width = parts.first().map_or(0, |part| part.weight.shape()[1]);
        let ranks: Vec<_> = parts.iter().map(|part| part.lora.as_ref().map(Lora::rank)).collect();
        let layout = Layout::new(width, &ranks, parts.iter().any(|part| part.bias.is_some()));
        Self { parts, layout, kept: None }
    }

    /// Columns that an input must have room for.
    pub(crate) fn columns(&self) -> i64 {
        self.layout.columns
    }

    /// Columns of an input that are its own.
    pub(crate) fn width(&self) -> i64 {
        self.layout.width
    }

    /// The weights in `kind`, with the columns of adapters and biases, `[O, C]`. Unpacked for every use: it lives as
    /// long as the caller keeps it.
    fn matrix(&self, kind: Kind, parameters: &[Parameter]) -> Result<Tensor> {
        if let Some(kept) = &self.kept {
            return Ok(kept.shallow_clone());
        }
        let weights: Vec<_> = self.parts.iter().map(|part| &part.weight).collect();
        let biases: Vec<_> = self.parts.iter().map(|part| part.bias.as_ref()).collect();
        // The factor acts on the inner values: the matrix does not depend on dropout.
        Ok(materialise(&weights, &biases, &self.layout, &self.adapters(None, parameters), kind)?)
    }

    /// Makes the matrix once, and keeps it instead of the weights. From then on `kind` and parameters must stay.
    pub(crate) fn keep_matrix(&mut self, kind: Kind, parameters: &[Parameter]) -> Result<()> {
        let matrix_OC = self.matrix(kind, parameters)?;
        let mut first = 0;
        for part in &mut self.parts {
            let [rows, width] = part.weight.shape();
            // Only their shape is asked for: a view lets go of the memory.
            part.weight = Weight::Dense(matrix_OC.f_narrow(0, first, rows)?.f_narrow(1, 0, width)?);
            first += rows;
        }
        self.kept = Some(matrix_OC);
        Ok(())
    }

    /// Writes the columns behind an input's own.
    ///
    /// # Shapes
    /// `x [T, C]`
    pub(crate) fn complete(&self, x_TC: &Tensor, pass: &Pass, parameters: &[Parameter]) -> Result<()> {
        if self.layout.extra() == 0 {
            return Ok(());
        }
        let adapters = self.adapters(Some(pass), parameters);
        Ok(lora_down(x_TC, &self.layout, &adapters, pass.dropout.as_ref().map(|dropout| &dropout.masks))?)
    }

    /// The outputs of all layers side by side. The unpacked weights stay where `keep` says, or are given up.
    ///
    /// # Shapes
    /// `x [T, C]`, completed; the result `[T, O]`.
    pub(crate) fn forward(
        &self,
        x_TC: &Tensor,
        keep: Option<&mut Option<Tensor>>,
        parameters: &[Parameter],
    ) -> Result<Tensor> {
        let kind = x_TC.f_kind()?;
        let matrix_OC = self.matrix(kind, parameters)?;
        let y_TO = product(x_TC, &matrix_OC.f_tr()?, kind)?;
        if let Some(keep) = keep {
            *keep = Some(matrix_OC);
        }
        Ok(y_TO)
    }

    /// Adds to the gradients of the adapters, and gives that of the augmented input, whose own columns are written only
    /// if they are wanted. `None` if neither has a use. The weights are unpacked again unless they were kept.
    ///
    /// # Shapes
    /// `dy [T, O]`, `x [T, C]`; the result `[T, C]`.
    pub(crate) fn backward(
        &self,
        dy_TO: &Tensor,
        (x_TC, kept): (&Tensor, Option<Tensor>),
        wanted: bool,
        pass: &Pass,
        parameters: &[Parameter],
    ) -> Result<Option<Tensor>> {
        if !wanted && self.layout.adapters.is_empty() {
            return Ok(None);
        }
        let kind = dy_TO.f_kind()?;
        let matrix_OC = match kept {
            Some(matrix_OC) => matrix_OC,
            None => self.matrix(kind, parameters)?,
        };
        let dx_TC = match wanted {
            true => product(dy_TO, &matrix_OC, kind)?,
            false => {
                let Layout { width, columns, .. } = self.layout;
                let dx_TC = Tensor::f_empty([dy_TO.size()[0], columns], (kind, dy_TO.device()))?;
                let inner = dx_TC.f_narrow(1, width, columns - width)?;
                product_into(&inner, dy_TO, &matrix_OC.f_narrow(1, width, columns - width)?, false)?;
                dx_TC
            }
        };
        drop(matrix_OC);
        if !self.layout.adapters.is_empty() {
            let gradients = self.gradients(pass, parameters)?;
            let masks = pass.dropout.as_ref().map(|dropout| &dropout.masks);
            lora_gradients(dy_TO, x_TC, &dx_TC, &self.layout, &gradients, masks)?;
        }
        Ok(Some(dx_TC))
    }

    /// Calls `finish` with the gradient of an augmented input, from which it makes that of the input.
    pub(crate) fn finish<R>(
        &self,
        dx_TC: &Tensor,
        pass: &Pass,
        parameters: &[Parameter],
        finish: impl FnOnce(&LoraInput<'_>) -> std::result::Result<R, pipe_kernels::Error>,
    ) -> Result<R> {
        let dropout = pass.dropout.as_ref().map(|dropout| &dropout.masks);
        let adapters = self.adapters(Some(pass), parameters);
        Ok(finish(&LoraInput { dx_TC, layout: &self.layout, adapters: &adapters, dropout })?)
    }

    fn adapters<'a>(&'a self, pass: Option<&Pass>, parameters: &'a [Parameter]) -> Vec<Adapter<'a>> {
        let of = |part: &'a Part| part.lora.as_ref().map(|lora| lora.adapter(part.module, pass, parameters));
        self.parts.iter().filter_map(of).collect()
    }

    fn gradients<'a>(&'a self, pass: &Pass, parameters: &'a [Parameter]) -> Result<Vec<AdapterGradients<'a>>> {
        let mut first_row = 0;
        let mut gradients = Vec::with_capacity(self.layout.adapters.len());
        for part in &self.parts {
            if let Some(lora) = &part.lora {
                let [grad_a, grad_b] = lora.gradients(parameters)?;
                let adapter = lora.adapter(part.module, Some(pass), parameters);
                gradients.push(AdapterGradients { adapter, first_row, grad_a, grad_b });
            }
            first_row += part.weight.shape()[0];
        }
        Ok(gradients)
    }
}
