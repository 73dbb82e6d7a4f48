//! The token embedding, and matrices that may be trained as a whole.

use tch::{Kind, Tensor};

use crate::{Parameter, error::Result};

/// A matrix with a row for each token: the embedding, or the head.
#[derive(Debug)]
pub(crate) enum Table {
    /// `[V, D]`
    Frozen(Tensor),
    /// The number of a parameter.
    Trained(usize),
}

impl Table {
    /// The matrix in `kind`, `[V, D]`.
    pub(crate) fn matrix(&self, kind: Kind, parameters: &[Parameter]) -> Result<Tensor> {
        match self {
            Self::Frozen(matrix) => Ok(matrix.f_to_kind(kind)?),
            Self::Trained(index) => parameters[*index].cast(kind),
        }
    }

    /// The rows of tokens in `kind`, `[tokens, D]`.
    pub(crate) fn rows(&self, ids: &Tensor, kind: Kind, parameters: &[Parameter]) -> Result<Tensor> {
        match self {
            Self::Frozen(matrix) => Ok(matrix.f_index_select(0, ids)?.f_to_kind(kind)?),
            Self::Trained(index) => parameters[*index].value.gather(ids, kind),
        }
    }

    /// The same matrix for a second use.
    pub(crate) fn shared(&self) -> Self {
        match self {
            Self::Frozen(matrix) => Self::Frozen(matrix.shallow_clone()),
            Self::Trained(index) => Self::Trained(*index),
        }
    }

    /// The parameter that it is, if it is trained.
    pub(crate) fn trained(&self) -> Option<usize> {
        match self {
            Self::Frozen(_) => None,
            Self::Trained(index) => Some(*index),
        }
    }
}
