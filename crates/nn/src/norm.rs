//! RMS norm with a frozen weight.

use pipe_kernels::ops::{LoraInput, Normed, rms_norm, rms_norm_backward};
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
    /// The norm of a residual stream behind an addition, in `kind`, with room for `columns`.
    pub(crate) fn forward(&self, stream: &Stream, columns: i64, kind: Kind) -> Result<Normed> {
        Ok(rms_norm(&stream.h, stream.add.as_ref(), &self.weight, self.epsilon, columns, kind)?)
    }

    /// The gradient of the norm's input, with what comes beside it, in the residual stream's type and rounded to that of
    /// the computation.
    pub(crate) fn backward(
        &self,
        input: &LoraInput<'_>,
        (h, rstd): (&Tensor, &Tensor),
        residual: &Tensor,
    ) -> std::result::Result<StreamGradient, pipe_kernels::Error> {
        let (exact, rounded) = rms_norm_backward(input, h, rstd, &self.weight, residual)?;
        Ok(StreamGradient { exact, rounded })
    }
}

/// The residual stream, `[T, D]`, in its own type, and what is still to be added to it, in the type of the computation:
/// the norm that reads it does both at once.
#[derive(Debug)]
pub(crate) struct Stream {
    pub(crate) h: Tensor,
    pub(crate) add: Option<Tensor>,
}

impl Stream {
    /// A stream with nothing to add.
    pub(crate) fn new(h: Tensor) -> Self {
        Self { h, add: None }
    }

    /// The sum.
    pub(crate) fn sum(&self) -> Result<Tensor> {
        match &self.add {
            Some(add) => Ok(self.h.f_add(add)?),
            None => Ok(self.h.shallow_clone()),
        }
    }
}

/// The gradient of a residual stream, `[T, D]`.
#[derive(Debug)]
pub(crate) struct StreamGradient {
    /// In the type of the stream.
    pub(crate) exact: Tensor,
    /// In the type of the computation.
    pub(crate) rounded: Tensor,
}
