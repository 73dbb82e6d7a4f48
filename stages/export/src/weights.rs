//! Computing all weights once, for all files that take them.

use std::sync::atomic::{AtomicU64, Ordering};

use pipe_hf::Parameter;
use pipe_merge::{Merged, Piece};
use pipe_stage::Context;

use crate::{Error, Format};

/// A file, or several, that takes merged weights.
pub(crate) trait Sink: Sync {
    /// Rounds and writes rows of a parameter. Called by several threads at once.
    fn put(&self, parameter: &Parameter, piece: Piece, values: &[f32]) -> Result<(), Error>;

    /// Completes the files and opens them to be read.
    fn finish(self: Box<Self>) -> Result<Box<dyn Written>, Error>;
}

/// Files with merged weights that are complete.
pub(crate) trait Written: Sync {
    /// What was asked for.
    fn format(&self) -> Format;

    /// The largest share of a tensor's root mean square that its rounding may take.
    fn bound(&self) -> f64;

    /// Gets a parameter ready to be read.
    fn open<'a>(&'a self, parameter: &'a Parameter) -> Result<Box<dyn WrittenTensor + 'a>, Error>;

    /// What only this format has to be checked for.
    fn check(&self, _context: &Context) -> Result<(), Error> {
        Ok(())
    }
}

/// A parameter in a file.
pub(crate) trait WrittenTensor: Sync {
    /// Reads whole rows, restored to float32.
    fn read(&self, piece: Piece, values: &mut [f32]) -> Result<(), Error>;

    /// What the file should hold for these values; nothing where only [`Written::bound`] can be said.
    fn meant(&self, values: &[f32]) -> Option<Vec<f32>>;
}

/// Computes all weights and hands them to `sinks`.
pub(crate) fn write(merged: &Merged, sinks: &[Box<dyn Sink>], context: &Context) -> Result<(), Error> {
    let progress = Progress::new(merged, "values", context);
    merged.stream(
        context.cpus(),
        |_| Ok(()),
        |(), parameter, piece, values| {
            if context.cancelled() {
                return Err(Error::Cancelled);
            }
            if values.iter().any(|value| !value.is_finite()) {
                return Err(Error::NotFinite {
                    tensor: parameter.name.clone(),
                    first_row: piece.first_row,
                    last_row: piece.first_row + piece.rows - 1,
                });
            }
            sinks.iter().try_for_each(|sink| sink.put(parameter, piece, values))?;
            progress.add(piece.elements());
            Ok(())
        },
    )
}

/// How far a pass over all weights is.
pub(crate) struct Progress<'a> {
    context: &'a Context,
    unit: &'static str,
    done: AtomicU64,
    total: u64,
}

impl<'a> Progress<'a> {
    pub(crate) fn new(merged: &Merged, unit: &'static str, context: &'a Context) -> Self {
        Self { context, unit, done: AtomicU64::new(0), total: count(merged.parameters()) }
    }

    pub(crate) fn add(&self, values: usize) {
        let done = self.done.fetch_add(values as u64, Ordering::Relaxed) + values as u64;
        self.context.progress(self.unit, done, Some(self.total));
    }
}

/// The values of all parameters.
pub(crate) fn count(parameters: &[Parameter]) -> u64 {
    parameters.iter().map(|parameter| parameter.shape.iter().product::<usize>() as u64).sum()
}
