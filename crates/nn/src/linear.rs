//! A frozen linear layer with an optional adapter.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, I width in, O width out, R rank")]

use tch::{Kind, Tensor};

use crate::{Parameter, dropout::Mask, error::Result, lora::Lora, nf4::Nf4Weight, parameter::GradientSum};

/// A frozen weight, `[O, I]`.
#[derive(Debug)]
pub(crate) enum Weight {
    /// In the type of the computation.
    Dense(Tensor),
    /// Four bits a value; unpacked for every use.
    Nf4(Nf4Weight),
}

impl Weight {
    /// The matrix in the type of the computation. With NF4 it lives as long as the caller keeps it.
    pub(crate) fn matrix(&self, kind: Kind) -> Result<Tensor> {
        match self {
            Self::Dense(weight) => Ok(weight.shallow_clone()),
            Self::Nf4(weight) => weight.dequantise(kind),
        }
    }
}

/// A linear layer.
#[derive(Debug)]
pub(crate) struct Linear {
    /// Of the input.
    pub(crate) width: usize,
    pub(crate) weight: Weight,
    /// `[O]`, frozen.
    pub(crate) bias: Option<Tensor>,
    pub(crate) lora: Option<Lora>,
}

impl Linear {
    /// The output, and what the adapter's backward pass needs.
    ///
    /// # Shapes
    /// `x [T, I]`; `[T, O]` and `[T, R]`.
    pub(crate) fn forward(
        &self,
        x_TI: &Tensor,
        mask: Option<&Mask>,
        parameters: &[Parameter],
    ) -> Result<(Tensor, Option<Tensor>)> {
        let weight_OI = self.weight.matrix(x_TI.f_kind()?)?;
        let mut y_TO = x_TI.f_linear(&weight_OI, self.bias.as_ref())?;
        drop(weight_OI);
        let u_TR = match &self.lora {
            Some(lora) => Some(lora.forward(x_TI, &mut y_TO, mask, parameters)?),
            None => None,
        };
        Ok((y_TO, u_TR))
    }

    /// Adds to the adapter's gradients, and to that of the input where it is wanted.
    pub(crate) fn backward(
        &self,
        dy_TO: &Tensor,
        (x_TI, u_TR): (&Tensor, Option<&Tensor>),
        mask: Option<&Mask>,
        parameters: &mut [Parameter],
        mut input: Option<&mut GradientSum>,
    ) -> Result<()> {
        if let Some(input) = input.as_deref_mut() {
            input.add(dy_TO.f_mm(&self.weight.matrix(dy_TO.f_kind()?)?)?)?;
        }
        if let (Some(lora), Some(u_TR)) = (&self.lora, u_TR) {
            lora.backward(dy_TO, (x_TI, u_TR), mask, parameters, input)?;
        }
        Ok(())
    }
}
