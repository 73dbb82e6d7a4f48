//! One pass over the samples: each is kept, or counted under the first reason to drop it.
//!
//! What a sample says alone is found out on several threads, a batch at a time; what depends on the samples before it is
//! decided in their order, so that threads do not change a byte.

use std::collections::HashSet;

use pipe_samples::{Reader, Sample, Writer};
use pipe_stage::{Context, Failure};
use pipe_text::Tokenizer;
use rayon::prelude::*;

use crate::{
    Error,
    config::{Config, MODEL, OnTooLong},
    near::{Index, Sketch, Sketcher},
    patterns::Patterns,
    tally::{Reason, Tally},
};

/// Samples that are looked at together; behind each batch, progress and cancellation are.
const BATCH_ROWS: usize = 1024;

/// What a sample says alone.
struct Examined {
    sample: Sample,
    /// Tokens that it lost.
    truncated: usize,
    /// The first reason to drop it; there may be one before it that only the samples before it tell.
    reason: Option<Reason>,
    hash: Option<blake3::Hash>,
    sketch: Option<Sketch>,
}

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let mut reader = Reader::open(context.input("samples")?)?;
    let total = reader.rows();
    let patterns = patterns(config, context)?;
    let sketcher = config.near_dedup.as_ref().map(Sketcher::new);
    let mut index = sketcher.as_ref().zip(config.near_dedup.as_ref()).map(|(s, near)| Index::new(near.threshold, s));
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.cpus().unwrap_or(0)).build()?;
    let mut writer = Writer::create(&context.output())?;
    let (mut seen, mut tally) = (HashSet::new(), Tally::new(config));
    loop {
        let batch = reader.by_ref().take(BATCH_ROWS).collect::<Result<Vec<Sample>, _>>()?;
        if batch.is_empty() {
            break;
        }
        let first = tally.rows;
        let examine = |(at, sample): (usize, Sample)| {
            examine(sample, config, patterns.as_ref(), sketcher.as_ref())
                .map_err(|source| Error::Text { row: first + at as u64, source })
        };
        let examined: Vec<_> = pool.install(|| batch.into_par_iter().enumerate().map(examine).collect());
        for examined in examined {
            let Examined { sample, truncated, mut reason, hash, sketch } = examined?;
            if hash.is_some_and(|hash| !seen.insert(hash)) {
                reason = Some(Reason::Duplicate);
            }
            if reason.is_none()
                && let Some((index, sketch)) = index.as_mut().zip(sketch)
                && let Some(found) = index.find_or_keep(tally.rows, sketch)
            {
                reason = Some(Reason::NearDuplicate);
                tally.near(tally.rows, &found);
            }
            match reason {
                None => {
                    tally.truncate(truncated);
                    writer.write(sample.view())?;
                }
                Some(reason) => tally.drop(reason, sample.input_ids.len() + truncated),
            }
            tally.rows += 1;
        }
        if context.cancelled() {
            return Err(Failure::cancelled());
        }
        context.progress("rows", tally.rows, Some(total));
    }
    let kept = writer.finish()?;
    if tally.rows == 0 {
        return Err(Error::NoSamples.into());
    }
    if kept.rows == 0 {
        return Err(Failure::from(Error::NothingLeft { rows: tally.rows, dropped: tally.describe(config) })
            .hint("relax the filter's limits, or look at what tokenize made of the data (pipe show STAGE)"));
    }
    tally.report(config, kept, index.as_ref().map(Index::clusters).as_ref(), context);
    Ok(())
}

/// The rules on the text, if there are any.
fn patterns(config: &Config, context: &Context) -> Result<Option<Patterns>, Failure> {
    if config.patterns().iter().all(|(_, patterns)| patterns.is_empty()) {
        return Ok(None);
    }
    let tokenizer = Tokenizer::load(context.input(MODEL)?).map_err(|source| {
        Failure::from(Error::NoTokenizer(source)).hint("name the stage that tokenize takes as its `model`")
    })?;
    Ok(Some(Patterns::new(config, tokenizer)?))
}

fn examine(
    mut sample: Sample,
    config: &Config,
    patterns: Option<&Patterns>,
    sketcher: Option<&Sketcher>,
) -> Result<Examined, pipe_text::Error> {
    let truncated = truncate(&mut sample, config);
    let length = sample.input_ids.len() as u64;
    let mut reason = if length < config.min_length {
        Some(Reason::TooShort)
    } else if config.max_length.is_some_and(|max_length| length > max_length) {
        Some(Reason::TooLong)
    } else if config.drop_unlabelled && sample.view().trained() == 0 {
        Some(Reason::Unlabelled)
    } else {
        None
    };
    let hash = (config.dedup && reason.is_none()).then(|| hash(&sample.input_ids));
    if let (None, Some(patterns)) = (reason, patterns) {
        reason = patterns.reason_to_drop(sample.view())?.map(Reason::Pattern);
    }
    let sketch = sketcher.filter(|_| reason.is_none()).map(|sketcher| sketcher.sketch(&sample.input_ids));
    Ok(Examined { sample, truncated, reason, hash, sketch })
}

/// Takes away what is too long, where that is asked for; gives the number of tokens.
fn truncate(sample: &mut Sample, config: &Config) -> usize {
    let Some(max_length) = config.max_length.filter(|_| config.on_too_long == OnTooLong::Truncate) else { return 0 };
    sample.truncate(usize::try_from(max_length).unwrap_or(usize::MAX), config.truncation_side)
}

/// 32 bytes a sample instead of its ids: a collision is out of the question.
fn hash(input_ids: &[u32]) -> blake3::Hash {
    let bytes: Vec<u8> = input_ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    blake3::hash(&bytes)
}
