//! The token embedding, and matrices that may be trained as a whole.

use tch::{Device, Kind, Tensor};

use crate::{Parameter, batch::PackedBatch, error::Result};

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
        let matrix = match self {
            Self::Frozen(matrix) => matrix,
            Self::Trained(index) => &parameters[*index].value,
        };
        Ok(matrix.f_index_select(0, ids)?.f_to_kind(kind)?)
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

/// Which rows of a pass belong to which token, sorted: the gradient of an embedding becomes sums over segments, added
/// to distinct rows. No two additions meet, so the order, and with it every bit, is the same on every run.
#[derive(Debug)]
pub(crate) struct TokenRows {
    /// The tokens, ascending, `[tokens]`.
    tokens: Tensor,
    /// Rows of the pass, sorted by token, `[rows]`.
    rows: Tensor,
    /// How many rows each token has, `[tokens]`.
    counts: Tensor,
}

impl TokenRows {
    /// Sorts the rows of a pass; those of `padding` get no gradient. `None` if there is no other.
    pub(crate) fn new(batch: &PackedBatch, padding: Option<u32>, device: Device) -> Result<Option<Self>> {
        let mut order: Vec<usize> =
            (0..batch.ids.len()).filter(|row| padding.is_none_or(|id| batch.ids[*row] != i64::from(id))).collect();
        // Stable: the rows of a token stay in the order of the pass.
        order.sort_by_key(|row| batch.ids[*row]);
        if order.is_empty() {
            return Ok(None);
        }
        let segments = order.chunk_by(|left, right| batch.ids[*left] == batch.ids[*right]);
        let (tokens, counts): (Vec<i64>, Vec<i64>) =
            segments.map(|segment| (batch.ids[segment[0]], segment.len() as i64)).unzip();
        let rows: Vec<i64> = order.into_iter().map(|row| row as i64).collect();
        let upload = |values: &[i64]| Tensor::f_from_slice(values)?.f_to_device(device);
        Ok(Some(Self { tokens: upload(&tokens)?, rows: upload(&rows)?, counts: upload(&counts)? }))
    }

    /// Adds the gradient of the embedding's output, `[T, D]`, to that of the embedding, `[V, D]`.
    pub(crate) fn add_to(&self, gradient: &mut Tensor, dy: &Tensor) -> Result<()> {
        let sorted = dy.f_index_select(0, &self.rows)?;
        let none = None::<&Tensor>;
        let sums = Tensor::f_segment_reduce(&sorted, "sum", Some(&self.counts), none, none, 0, true, 0.0)?;
        let _ = gradient.f_index_add_(0, &self.tokens, &sums)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::Sample;

    #[test]
    fn rows_of_a_token_are_summed_and_padding_is_left_out() {
        let labels = [0; 6];
        let batch =
            PackedBatch::new(&[Sample { ids: &[3, 1, 3, 0, 3, 1], labels: &labels, place: 0, row: 0 }]).unwrap();
        let dy = Tensor::from_slice(&[1.0, 2.0, 4.0, 8.0, 16.0, 32.0]).view([6, 1]);
        let gradient = |padding| {
            let mut gradient = Tensor::full([4, 1], 100.0, (Kind::Double, Device::Cpu));
            TokenRows::new(&batch, padding, Device::Cpu).unwrap().unwrap().add_to(&mut gradient, &dy).unwrap();
            Vec::<f64>::try_from(gradient.flatten(0, 1)).unwrap()
        };
        assert_eq!(gradient(None), [108.0, 134.0, 100.0, 121.0]);
        assert_eq!(gradient(Some(3)), [108.0, 134.0, 100.0, 100.0]);
        let only_padding = PackedBatch::new(&[Sample { ids: &[2], labels: &[2], place: 0, row: 0 }]).unwrap();
        assert!(TokenRows::new(&only_padding, Some(2), Device::Cpu).unwrap().is_none());
    }
}
