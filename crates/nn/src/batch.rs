//! Samples of one pass, packed one behind the other without padding.

use crate::{Error, error::Result};

/// The label of a position that the loss leaves out.
pub const IGNORED_LABEL: i32 = -100;

/// One sample to pack.
#[derive(Debug, Clone, Copy)]
pub struct Sample<'a> {
    /// Token ids.
    pub ids: &'a [u32],
    /// For each position its own token id, or [`IGNORED_LABEL`]. The position before it predicts it; the first
    /// position's label is predicted by nobody and never counts.
    pub labels: &'a [i32],
    /// The sample's place in the optimizer update, from 0: with it dropout does not depend on how an update is split.
    pub place: u32,
    /// Its row in the data, for messages.
    pub row: u64,
}

/// Where a sample lies in a pass.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) length: usize,
    /// How many of its positions are predicted.
    pub(crate) labels: usize,
    pub(crate) place: u32,
    pub(crate) row: u64,
}

/// The samples of one pass.
#[derive(Debug, Clone)]
pub struct PackedBatch {
    /// Token ids, `[tokens]`.
    pub(crate) ids: Vec<i64>,
    /// Positions, restarting in every sample, `[tokens]`.
    pub(crate) positions: Vec<i64>,
    /// The samples, in order.
    pub(crate) spans: Vec<Span>,
    /// The rows of the pass that predict something, ascending, `[labels]`.
    pub(crate) label_rows: Vec<i64>,
    /// What they predict, `[labels]`.
    pub(crate) targets: Vec<i64>,
}

impl PackedBatch {
    /// Packs samples in the given order.
    ///
    /// # Errors
    /// If there is none, or one is empty, or its labels do not fit its ids. Ids are compared with the vocabulary by
    /// the model.
    pub fn new(samples: &[Sample<'_>]) -> Result<Self> {
        if samples.is_empty() {
            return Err(Error::EmptyBatch);
        }
        let mut batch = Self {
            ids: Vec::new(),
            positions: Vec::new(),
            spans: Vec::with_capacity(samples.len()),
            label_rows: Vec::new(),
            targets: Vec::new(),
        };
        for sample in samples {
            batch.push(sample)?;
        }
        Ok(batch)
    }

    fn push(&mut self, sample: &Sample<'_>) -> Result<()> {
        let wrong = |problem: String| Error::Sample { row: sample.row, problem };
        if sample.ids.is_empty() {
            return Err(wrong("it has no tokens".to_owned()));
        }
        if sample.ids.len() != sample.labels.len() {
            let (ids, labels) = (sample.ids.len(), sample.labels.len());
            return Err(wrong(format!("it has {ids} input_ids and {labels} labels")));
        }
        let start = self.ids.len();
        let labels_before = self.targets.len();
        for (position, label) in sample.labels.iter().enumerate() {
            if *label < 0 && *label != IGNORED_LABEL {
                return Err(wrong(format!(
                    "label {label} at position {position} is neither a token nor {IGNORED_LABEL}"
                )));
            }
            if position > 0 && *label != IGNORED_LABEL {
                self.label_rows.push((start + position - 1) as i64);
                self.targets.push(i64::from(*label));
            }
        }
        self.ids.extend(sample.ids.iter().map(|id| i64::from(*id)));
        self.positions.extend((0..sample.ids.len()).map(|position| position as i64));
        let (length, labels) = (sample.ids.len(), self.targets.len() - labels_before);
        self.spans.push(Span { start, length, labels, place: sample.place, row: sample.row });
        Ok(())
    }

    /// The place in the update of the sample that each token is of.
    pub(crate) fn places(&self) -> Vec<i32> {
        self.spans.iter().flat_map(|span| std::iter::repeat_n(span.place as i32, span.length)).collect()
    }

    /// How many tokens the pass has.
    pub fn tokens(&self) -> usize {
        self.ids.len()
    }

    /// How many positions are predicted.
    pub fn labels(&self) -> u64 {
        self.targets.len() as u64
    }

    /// Checks every id and label against the vocabulary: on a device a wrong one would end the process.
    pub(crate) fn check_vocabulary(&self, vocab_size: usize) -> Result<()> {
        let beyond = |id: &i64| usize::try_from(*id).is_ok_and(|id| id >= vocab_size);
        for span in &self.spans {
            let wrong = |problem: String| Error::Sample { row: span.row, problem };
            let ids = &self.ids[span.start..span.start + span.length];
            if let Some(position) = ids.iter().position(beyond) {
                let id = ids[position];
                return Err(wrong(format!(
                    "token {id} at position {position} is outside of the vocabulary of {vocab_size}"
                )));
            }
        }
        let Some(index) = self.targets.iter().position(beyond) else { return Ok(()) };
        let (target, row) = (self.targets[index], self.label_rows[index]);
        let span = self.spans.iter().rfind(|span| span.start as i64 <= row);
        let position = row + 1 - span.map_or(0, |span| span.start as i64);
        Err(Error::Sample {
            row: span.map_or(0, |span| span.row),
            problem: format!("label {target} at position {position} is outside of the vocabulary of {vocab_size}"),
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn sample<'a>(ids: &'a [u32], labels: &'a [i32], place: u32) -> Sample<'a> {
        Sample { ids, labels, place, row: u64::from(place) + 10 }
    }

    #[test]
    fn labels_are_shifted_within_a_sample() {
        let batch = PackedBatch::new(&[sample(&[5, 6, 7], &[5, -100, 7], 0), sample(&[8, 9], &[8, 9], 1)]).unwrap();
        assert_eq!(batch.ids, [5, 6, 7, 8, 9]);
        assert_eq!(batch.positions, [0, 1, 2, 0, 1]);
        // The first label of a sample has no position before it: 5 and 8 are predicted by nobody.
        assert_eq!((batch.label_rows.as_slice(), batch.targets.as_slice()), (&[1, 3][..], &[7, 9][..]));
        assert_eq!(batch.spans.iter().map(|span| span.labels).collect::<Vec<_>>(), [1, 1]);
    }

    #[test]
    fn bad_samples_name_their_row() {
        let message = |samples: &[Sample<'_>]| PackedBatch::new(samples).unwrap_err().to_string();
        assert_eq!(message(&[]), "a batch needs at least one sample");
        assert_eq!(message(&[sample(&[], &[], 0)]), "sample 10: it has no tokens");
        assert_eq!(message(&[sample(&[1], &[], 1)]), "sample 11: it has 1 input_ids and 0 labels");
        assert!(message(&[sample(&[1], &[-1], 0)]).contains("label -1 at position 0"));
        let batch = PackedBatch::new(&[sample(&[1, 2], &[1, 2], 0), sample(&[1, 9], &[1, 1], 1)]).unwrap();
        assert!(batch.check_vocabulary(10).is_ok());
        assert_eq!(
            batch.check_vocabulary(9).unwrap_err().to_string(),
            "sample 11: token 9 at position 1 is outside of the vocabulary of 9"
        );
        let batch = PackedBatch::new(&[sample(&[1, 2], &[1, 2], 0), sample(&[1, 2], &[1, 9], 1)]).unwrap();
        assert_eq!(
            batch.check_vocabulary(9).unwrap_err().to_string(),
            "sample 11: label 9 at position 1 is outside of the vocabulary of 9"
        );
    }
}
