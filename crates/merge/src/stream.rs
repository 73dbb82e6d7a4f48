//! All parameters of a merged model, one after the other, each in pieces that threads share.

use pipe_hf::Parameter;
use rayon::prelude::*;

use crate::{Error, Merged};

/// Elements that a thread works on at a time, about: some 2 MiB with all that belongs to them.
pub const PIECE_ELEMENTS: usize = 1 << 18;

/// A range of whole rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// The first of them.
    pub first_row: usize,
    /// How many, at least one.
    pub rows: usize,
    /// Values in a row.
    pub columns: usize,
}

impl Piece {
    /// The element that it begins with.
    pub fn first(&self) -> usize {
        self.first_row * self.columns
    }

    /// Its values.
    pub fn elements(&self) -> usize {
        self.rows * self.columns
    }
}

/// The pieces of a tensor. Each but the last is a whole number of blocks of 64 elements, as NF4 counts them.
pub fn piece_rows(shape: &[usize]) -> Vec<Piece> {
    let columns = shape.last().copied().unwrap_or(1).max(1);
    let rows = shape.iter().product::<usize>() / columns;
    // The fewest rows that are whole blocks: 64 / gcd(64, columns), a power of two.
    let unit = 64 >> columns.trailing_zeros().min(6);
    let step = (PIECE_ELEMENTS / columns / unit * unit).max(unit);
    (0..rows).step_by(step).map(|first_row| Piece { first_row, rows: step.min(rows - first_row), columns }).collect()
}

impl Merged {
    /// Computes every parameter and hands its pieces to `sink`, those of one parameter from several threads at once and
    /// in any order, the parameters one after the other, together with what `begin` made for the parameter. `threads` of
    /// `None` takes as many as there are cores.
    ///
    /// # Errors
    /// The first error of reading, or of the two functions.
    pub fn stream<'a, T: Sync, E: From<Error> + Send>(
        &'a self,
        threads: Option<usize>,
        begin: impl Fn(&'a Parameter) -> Result<T, E> + Sync,
        sink: impl Fn(&T, &Parameter, Piece, &[f32]) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
        pool.map_err(Error::from)?.install(|| {
            for parameter in self.parameters() {
                let tensor = self.tensor(&parameter.name)?;
                let begun = begin(parameter)?;
                piece_rows(&parameter.shape).into_par_iter().try_for_each(|piece| {
                    let mut values = vec![0.0; piece.elements()];
                    tensor.read_rows(piece.first_row, &mut values)?;
                    sink(&begun, parameter, piece, &values)
                })?;
            }
            Ok(())
        })
    }
}
