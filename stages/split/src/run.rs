//! Chooses rows by a seeded hash, then copies each sample to its part; both parts keep the input's order.

use pipe_samples::{Reader, Writer, choice::choose};
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
