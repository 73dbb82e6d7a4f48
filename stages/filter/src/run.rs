//! One pass over the samples: each is kept, or counted under the first reason to drop it.

use std::collections::HashSet;

use pipe_samples::{Reader, SampleRef, Writer};
use pipe_stage::{Context, Failure};

use crate::Config;

/// Samples between two looks at progress and cancellation.
const ROWS_A_LOOK: u64 = 1024;

/// Why filtering failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There was nothing to filter.
    #[error("there is no sample to filter: the input is empty")]
    NoSamples,
    /// No sample passed.
    #[error("none of {rows} samples is left: {dropped}")]
    NothingLeft {
        /// Samples of the input.
        rows: u64,
        /// The counts, as text.
        dropped: String,
    },
}

/// Why a sample was dropped. In the order in which they are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    TooShort,
    TooLong,
    Unlabelled,
    Duplicate,
}

const REASONS: [(Reason, &str); 4] = [
    (Reason::TooShort, "dropped_too_short"),
    (Reason::TooLong, "dropped_too_long"),
    (Reason::Unlabelled, "dropped_unlabelled"),
    (Reason::Duplicate, "dropped_duplicate"),
];

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let reader = Reader::open(context.input("samples")?)?;
    let total = reader.rows();
    let mut writer = Writer::create(&context.output())?;
    let mut seen = HashSet::new();
    let mut dropped = [0u64; REASONS.len()];
    let mut tokens_dropped = 0;
    for (row, sample) in (0u64..).zip(reader) {
        let sample = sample?;
        match reason_to_drop(config, sample.view(), &mut seen) {
            None => writer.write(sample.view())?,
            Some(reason) => {
                dropped[reason as usize] += 1;
                tokens_dropped += sample.input_ids.len() as u64;
            }
        }
        if row % ROWS_A_LOOK == 0 {
            if context.cancelled() {
                return Err(Failure::cancelled());
            }
            context.progress("rows", row, Some(total));
        }
    }
    context.progress("rows", total, Some(total));
    let kept = writer.finish()?;
    if total == 0 {
        return Err(Error::NoSamples.into());
    }
    if kept.rows == 0 {
        return Err(Failure::from(Error::NothingLeft { rows: total, dropped: describe(config, &dropped) })
            .hint("relax the filter's limits, or look at what tokenize made of the data"));
    }
    context.figure("rows", total);
    context.figure("rows_kept", kept.rows);
    for ((_, name), count) in REASONS.iter().zip(dropped) {
        context.figure(name, count);
    }
    context.figure("tokens_kept", kept.tokens);
    context.figure("tokens_dropped", tokens_dropped);
    context.figure("tokens_trained", kept.trained_tokens);
    Ok(())
}

fn reason_to_drop(config: &Config, sample: SampleRef<'_>, seen: &mut HashSet<blake3::Hash>) -> Option<Reason> {
    let length = sample.len() as u64;
    if length < config.min_length {
        Some(Reason::TooShort)
    } else if config.max_length.is_some_and(|max_length| length > max_length) {
        Some(Reason::TooLong)
    } else if config.drop_unlabelled && sample.trained() == 0 {
        Some(Reason::Unlabelled)
    } else if config.dedup && !seen.insert(hash(sample.input_ids)) {
        Some(Reason::Duplicate)
    } else {
        None
    }
}

/// 32 bytes a sample instead of its ids: a collision is out of the question.
fn hash(input_ids: &[u32]) -> blake3::Hash {
    let bytes: Vec<u8> = input_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    blake3::hash(&bytes)
}

/// The counts of an empty result: `12 shorter than min_length 32, 3 longer than max_length 384`.
fn describe(config: &Config, dropped: &[u64; REASONS.len()]) -> String {
    let mut parts = Vec::new();
    for ((reason, _), count) in REASONS.iter().zip(dropped).filter(|(_, count)| **count > 0) {
        parts.push(match reason {
            Reason::TooShort => format!("{count} shorter than min_length {}", config.min_length),
            Reason::TooLong => format!("{count} longer than max_length {}", config.max_length.unwrap_or_default()),
            Reason::Unlabelled => format!("{count} with no token for the loss (drop_unlabelled)"),
            Reason::Duplicate => format!("{count} duplicates"),
        });
    }
    parts.join(", ")
}
