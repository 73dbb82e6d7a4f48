//! Reading back what was written.
//!
//! This proves that every file holds the weights that were computed, in the right places, and the tokenizer and template
//! that were trained with. What the forward pass makes of them needs libtorch, and is not looked at here.

use std::sync::{Mutex, PoisonError};

use pipe_merge::Merged;
use pipe_stage::Context;

use crate::{
    Error, Format,
    card::Rows,
    weights::{Progress, Written},
};

/// What was found in one format.
pub(crate) struct Finding {
    pub(crate) format: Format,
    /// Root mean square of the rounding of all weights, as a share of theirs.
    pub(crate) rounding: f64,
    /// The same of the tensor that has it worst.
    pub(crate) worst: f64,
    /// That tensor.
    pub(crate) worst_tensor: String,
    /// The largest rounding of a single value.
    pub(crate) largest: f64,
    pub(crate) tensors: usize,
}

impl Finding {
    pub(crate) fn rows(&self) -> Rows {
        let mut rows = Rows::default();
        rows.push("tensors read back", self.tensors);
        rows.push("rounding, share of the root mean square", format_args!("{:.3e}", self.rounding));
        rows.push("the same in the worst tensor", format_args!("{:.3e} ({})", self.worst, self.worst_tensor));
        rows.push("largest rounding of a value", format_args!("{:.3e}", self.largest));
        rows.push("tokens of texts and conversations", "equal");
        rows
    }
}

/// Sums over the values of a piece.
#[derive(Clone, Copy, Default)]
struct Sums {
    error: f64,
    size: f64,
    largest: f64,
}

impl Sums {
    fn of(found: &[f32], values: &[f32]) -> Self {
        let mut sums = Self::default();
        for (found, value) in found.iter().zip(values) {
            let difference = f64::from(*found) - f64::from(*value);
            sums.error += difference * difference;
            sums.size += f64::from(*value) * f64::from(*value);
            sums.largest = sums.largest.max(difference.abs());
        }
        sums
    }

    fn add(&mut self, other: Self) {
        self.error += other.error;
        self.size += other.size;
        self.largest = self.largest.max(other.largest);
    }

    fn share(&self) -> f64 {
        if self.error == 0.0 { 0.0 } else { (self.error / self.size).sqrt() }
    }
}

/// Computes all weights a second time and compares every file with them. The sums are added up in the order of the rows,
/// so that they do not depend on the threads.
pub(crate) fn check(merged: &Merged, written: &[Box<dyn Written>], context: &Context) -> Result<Vec<Finding>, Error> {
    let progress = Progress::new(merged, "values checked", context);
    let pieces: Mutex<Vec<(usize, usize, usize, Sums)>> = Mutex::default();
    let place = |name: &str| merged.parameters().iter().position(|parameter| parameter.name == name).unwrap_or(0);
    // The seam for a second proof: logits of what was written against base and adapter, where libtorch is at hand.
    merged.stream(
        context.cpus(),
        |parameter| {
            let opened = written.iter().map(|file| file.open(parameter));
            Ok((place(&parameter.name), opened.collect::<Result<Vec<_>, _>>()?))
        },
        |(tensor, opened), parameter, piece, values| {
            if context.cancelled() {
                return Err(Error::Cancelled);
            }
            let mut found = vec![0.0; values.len()];
            for (index, (file, opened)) in written.iter().zip(opened).enumerate() {
                opened.read(piece, &mut found)?;
                if opened.meant(values).is_some_and(|meant| !same(&meant, &found)) {
                    let (first, last) = (piece.first_row, piece.first_row + piece.rows - 1);
                    let problem = format!("`{}` holds other values in its rows {first} to {last}", parameter.name);
                    return Err(Error::Check { format: file.format().name(), problem });
                }
                let sums = Sums::of(&found, values);
                let mut pieces = pieces.lock().unwrap_or_else(PoisonError::into_inner);
                pieces.push((index, *tensor, piece.first_row, sums));
            }
            progress.add(piece.elements());
            Ok(())
        },
    )?;
    let mut pieces = pieces.into_inner().unwrap_or_else(PoisonError::into_inner);
    pieces.sort_by_key(|(file, tensor, row, _)| (*file, *tensor, *row));
    let mut findings = Vec::new();
    for (index, file) in written.iter().enumerate() {
        let mut tensors = vec![Sums::default(); merged.parameters().len()];
        for (_, tensor, _, sums) in pieces.iter().filter(|(file, ..)| *file == index) {
            tensors[*tensor].add(*sums);
        }
        let finding = summarise(merged, file.as_ref(), &tensors);
        if finding.worst > file.bound() {
            let Finding { worst, worst_tensor, .. } = finding;
            let problem = format!("rounding took {worst:.3e} of `{worst_tensor}`, more than {:.1e}", file.bound());
            return Err(Error::Check { format: file.format().name(), problem });
        }
        file.check(context)?;
        findings.push(finding);
    }
    Ok(findings)
}

/// Whether two lists hold the same numbers; zeros of either sign are one.
fn same(one: &[f32], other: &[f32]) -> bool {
    one.len() == other.len() && one.iter().zip(other).all(|(one, other)| one == other)
}

fn summarise(merged: &Merged, file: &dyn Written, tensors: &[Sums]) -> Finding {
    let mut all = Sums::default();
    let (mut worst, mut worst_tensor) = (0.0, "none");
    for (sums, parameter) in tensors.iter().zip(merged.parameters()) {
        all.add(*sums);
        // NaN is no rounding.
        let share = if sums.share().is_nan() { f64::INFINITY } else { sums.share() };
        if share > worst {
            (worst, worst_tensor) = (share, parameter.name.as_str());
        }
    }
    Finding {
        format: file.format(),
        rounding: all.share(),
        worst,
        worst_tensor: worst_tensor.to_owned(),
        largest: all.largest,
        tensors: tensors.len(),
    }
}
