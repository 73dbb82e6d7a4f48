//! Chooses rows by a seeded hash, then copies each sample to its part; both parts keep the input's order.

use pipe_samples::{Reader, Writer};
use pipe_stage::{Context, Failure};

use crate::Config;

/// Samples between two looks at progress and cancellation.
const ROWS_A_LOOK: u64 = 1024;

/// Why splitting failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// One of the parts would have no sample.
    #[error("cannot hold out {held_out} of {rows} samples: one of the parts would be empty")]
    EmptyPart {
        /// Samples of the input.
        rows: u64,
        /// Samples to hold out.
        held_out: u64,
    },
}

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let reader = Reader::open(context.input("samples")?)?;
    let rows = reader.rows();
    let held_out_rows = config.held_out_of(rows);
    if held_out_rows == 0 || held_out_rows >= rows {
        return Err(Failure::from(Error::EmptyPart { rows, held_out: held_out_rows })
            .hint("give more samples, or another held_out or held_out_rows"));
    }
    let mut chosen = choose(config.seed, rows, held_out_rows).into_iter().peekable();
    let mut train = Writer::create(&context.output_named("train"))?;
    let mut held_out = Writer::create(&context.output_named("held_out"))?;
    for (row, sample) in (0u64..).zip(reader) {
        let part = if chosen.next_if_eq(&row).is_some() { &mut held_out } else { &mut train };
        part.write(sample?.view())?;
        if row % ROWS_A_LOOK == 0 {
            if context.cancelled() {
                return Err(Failure::cancelled());
            }
            context.progress("rows", row, Some(rows));
        }
    }
    context.progress("rows", rows, Some(rows));
    let (train, held_out) = (train.finish()?, held_out.finish()?);
    context.figure("rows_train", train.rows);
    context.figure("rows_held_out", held_out.rows);
    context.figure("tokens_train", train.tokens);
    context.figure("tokens_held_out", held_out.tokens);
    Ok(())
}

/// The `count` rows of the smallest hashes, ascending. A hash depends on seed and row alone, so that samples added at
/// the end move few of the others between the parts.
fn choose(seed: u64, rows: u64, count: u64) -> Vec<u64> {
    let mut ranked: Vec<(u64, u64)> = (0..rows).map(|row| (hash(seed, row), row)).collect();
    let count = usize::try_from(count).unwrap_or(usize::MAX).min(ranked.len());
    ranked.sort_unstable();
    let mut chosen: Vec<u64> = ranked.into_iter().take(count).map(|(_, row)| row).collect();
    chosen.sort_unstable();
    chosen
}

/// Output `row` of the generator SplitMix64 after a scrambled seed: integer arithmetic, the same on every machine.
///
/// # Source
/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
fn hash(seed: u64, row: u64) -> u64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = mix(seed.wrapping_add(GOLDEN_GAMMA));
    mix(start.wrapping_add(row.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)))
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
