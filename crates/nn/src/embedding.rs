//! The token embedding, and matrices that may be trained as a whole.

use pipe_kernels::upload_tensor;
use tch::{Kind, Tensor};

use crate::{Parameter, decoder::Pass, error::Result};

/// A matrix with a row for each token: the embedding, or the head.
#[derive(Debug)]
pub(crate) enum Table {
    /// `[V, D]`
    Frozen(Tensor),
    /// `[V, D]`, in the memory of the host: only its rows go to the device.
    Host(Tensor),
    /// The number of a parameter.
    Trained(usize),
}

impl Table {
    /// The matrix in `kind`, `[V, D]`.
    pub(crate) fn matrix(&self, kind: Kind, parameters: &[Parameter]) -> Result<Tensor> {
        match self {
            Self::Frozen(matrix) | Self::Host(matrix) => Ok(matrix.f_to_kind(kind)?),
            Self::Trained(index) => parameters[*index].cast(kind),
        }
    }

    /// The rows of a pass's tokens in `kind`, `[tokens, D]`.
    pub(crate) fn rows(&self, pass: &Pass, kind: Kind, parameters: &[Parameter]) -> Result<Tensor> {
        let ids = &pass.ids;
        match self {
            Self::Frozen(matrix) => Ok(matrix.f_index_select(0, ids)?.f_to_kind(kind)?),
            Self::Host(matrix) => {
                let rows = matrix.f_index_select(0, pass.host_ids.as_ref().unwrap_or(ids))?;
                Ok(upload_tensor(rows, ids.device())?.f_to_kind(kind)?)
            }
            Self::Trained(index) => parameters[*index].value.gather(ids, kind),
        }
    }

    /// Whether it is in the memory of the host, apart from what is computed.
    pub(crate) fn on_host(&self) -> bool {
        matches!(self, Self::Host(_))
    }

    /// The same matrix for a second use.
    pub(crate) fn shared(&self) -> Self {
        match self {
            Self::Frozen(matrix) => Self::Frozen(matrix.shallow_clone()),
            Self::Host(matrix) => Self::Host(matrix.shallow_clone()),
            Self::Trained(index) => Self::Trained(*index),
        }
    }

    /// The parameter that it is, if it is trained.
    pub(crate) fn trained(&self) -> Option<usize> {
        match self {
            Self::Frozen(_) | Self::Host(_) => None,
            Self::Trained(index) => Some(*index),
        }
    }
}
