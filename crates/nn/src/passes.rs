//! Cuts samples into passes that fit the memory, and measures a model on samples.

use crate::{Error, Model, PackedBatch, Sample, error::Result};

/// Packs samples, in order, into passes of at most `max_tokens` tokens; a longer sample is a pass of its own.
///
/// Samples without a label are left out: they have neither loss nor gradient.
///
/// # Errors
/// Each pass may be an error of [`PackedBatch::new`].
pub fn passes<'a>(
    samples: impl IntoIterator<Item = Sample<'a>>,
    max_tokens: u64,
) -> impl Iterator<Item = Result<PackedBatch>> {
    let samples = samples.into_iter().filter(has_labels);
    pipe_samples::passes(samples, |sample| sample.ids.len() as u64, max_tokens).map(|pass| PackedBatch::new(&pass))
}

/// Whether a sample has a label that the loss counts. One that is malformed passes, for [`PackedBatch::new`] to name it.
fn has_labels(sample: &Sample<'_>) -> bool {
    sample.ids.len() != sample.labels.len() || sample.labels.iter().skip(1).any(|label| *label != crate::IGNORED_LABEL)
}

/// The loss of a model on samples.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HeldOut {
    /// Sum of the negative log-likelihoods, in nats.
    pub sum_nll: f64,
    /// Tokens that were predicted.
    pub labels: u64,
    /// Samples that have any.
    pub samples: u64,
    /// Of each such sample.
    pub per_sample: Vec<SampleLoss>,
}

/// The loss of one sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SampleLoss {
    /// Its row in the data.
    pub row: u64,
    /// Sum of the negative log-likelihoods, in nats.
    pub sum_nll: f64,
    /// Tokens that were predicted.
    pub labels: u64,
}

impl HeldOut {
    /// Nats a token, over all tokens of all samples; `None` if there are none.
    pub fn loss(&self) -> Option<f64> {
        (self.labels > 0).then(|| self.sum_nll / self.labels as f64)
    }

    /// `exp(loss)`.
    pub fn perplexity(&self) -> Option<f64> {
        self.loss().map(f64::exp)
    }
}

/// Measures `model` on `samples`, in passes of at most `max_tokens` tokens. `go_on` is asked after every pass, with the
/// number of samples so far; `None` is returned when it says no.
///
/// # Errors
/// If a sample is malformed, or the device refuses.
pub fn held_out_loss<'a>(
    model: &Model,
    samples: impl IntoIterator<Item = Sample<'a>>,
    max_tokens: u64,
    mut go_on: impl FnMut(u64) -> bool,
) -> std::result::Result<Option<HeldOut>, Error> {
    let mut total = HeldOut::default();
    for batch in passes(samples, max_tokens) {
        let batch = batch?;
        let loss = model.loss(&batch)?;
        for (span, (sum_nll, labels)) in batch.spans.iter().zip(&loss.per_sample) {
            total.per_sample.push(SampleLoss { row: span.row, sum_nll: *sum_nll, labels: *labels });
        }
        total.sum_nll += loss.sum_nll;
        total.labels += loss.labels;
        total.samples += batch.spans.len() as u64;
        if !go_on(total.samples) {
            return Ok(None);
        }
    }
    Ok(Some(total))
}
