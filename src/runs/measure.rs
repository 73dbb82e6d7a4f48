//! The one number of a run that a list has room for.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Outcome, RunRecord, RunSummary, Runs};
use crate::cache::Key;

/// The words by which a figure says that it measures how good a result is, the most telling first.
const WORDS: [&str; 13] =
    ["accuracy", "acc", "score", "f1", "bleu", "rouge", "auc", "perplexity", "ppl", "wer", "error", "mse", "loss"];

/// A run in which nothing ran has the measure of an earlier one; so many different ones are tried.
const TRIED: usize = 20;

/// A figure that says how good the result of a run is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// The stage that reported it.
    pub stage: String,
    /// The key under which the stage did.
    pub key: Key,
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: f64,
}

impl Measure {
    /// The best measure of the last stage that ran and has one.
    pub fn of(record: &RunRecord) -> Option<Self> {
        let ran = record.stages.iter().rev().filter(|(_, stage)| stage.outcome == Outcome::Ran);
        ran.filter_map(|(name, stage)| {
            let metrics = stage.metrics.iter().map(|(name, value)| (name.as_str(), *value));
            Self::among(name, stage.key?, figures(&stage.figures).chain(metrics))
        })
        .next()
    }

    /// The most telling of the figures of a stage: the earliest word counts, then the first figure.
    pub(crate) fn among<'a>(stage: &str, key: Key, figures: impl Iterator<Item = (&'a str, f64)>) -> Option<Self> {
        let (_, name, value) = figures
            .filter_map(|(name, value)| Some((rank(name)?, name, value)))
            // `min_by_key` takes the first of equals.
            .min_by_key(|(rank, _, _)| *rank)?;
        Some(Self { stage: stage.to_owned(), key, name: name.to_owned(), value })
    }
}

impl Runs {
    /// Gives each of the first `count` runs of a list, which is in the order of [`Runs::summaries`], that has no measure
    /// of its own the one of the newest run before it whose artifacts it found.
    pub fn inherit_measures(&self, list: &mut [RunSummary], count: usize) {
        for index in 0..count.min(list.len()) {
            let (run, before) = (&list[index], &list[index + 1..]);
            if run.measure.is_some() || run.counts.hits == 0 {
                continue;
            }
            let before = before.iter().filter(|other| other.pipeline == run.pipeline);
            let mut measures = before.filter_map(|other| other.measure.as_ref()).take(TRIED);
            list[index].measure = measures.find(|measure| self.mentions(&run.id, &measure.key)).cloned();
        }
    }
}

/// The figures that are numbers.
pub(crate) fn figures(figures: &indexmap::IndexMap<String, Value>) -> impl Iterator<Item = (&str, f64)> {
    figures.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
}

fn rank(name: &str) -> Option<usize> {
    let parts: Vec<&str> = name.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    if parts.contains(&"before") {
        return None;
    }
    WORDS.iter().position(|word| parts.contains(word))
}
