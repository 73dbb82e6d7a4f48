//! What a run writes down: one line of JSON an update, an evaluation and an answer, and a summary.

use std::path::Path;

use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

use crate::error::Error;

/// The files beside the adapter, and in checkpoints.
pub(crate) const METRICS_FILE: &str = "metrics.jsonl";
/// Only with an input `eval`.
pub(crate) const EVAL_FILE: &str = "eval.jsonl";
/// Only with `prompts`.
pub(crate) const ANSWERS_FILE: &str = "answers.jsonl";
/// Read by `export`.
pub(crate) const SUMMARY_FILE: &str = "training.json";

/// A line of `metrics.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct UpdateRecord {
    /// Counted from 1.
    pub(crate) step: u64,
    /// Nats a label, over all labels of the update, before it.
    #[serde(deserialize_with = "number_or_null")]
    pub(crate) loss: f64,
    /// Before clipping.
    #[serde(deserialize_with = "number_or_null")]
    pub(crate) grad_norm: f64,
    /// The one of this update.
    pub(crate) learning_rate: f64,
    /// Tokens of the update's samples.
    pub(crate) tokens: u64,
    /// Only in float16.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) loss_scale: Option<ScaleRecord>,
}

/// How the loss of an update was scaled.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ScaleRecord {
    /// What it was multiplied by.
    pub(crate) scale: f64,
    /// Good updates since the scale changed, before this one.
    pub(crate) good_updates: u64,
    /// Whether the update was left out, since its gradients were not finite.
    pub(crate) skipped: bool,
}

/// JSON has no word for a number that is not finite: it is written as `null`.
fn number_or_null<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::NAN))
}

/// A line of `eval.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct EvalRecord {
    /// Updates before it; 0 is before the first.
    pub(crate) step: u64,
    /// Nats a label.
    #[serde(deserialize_with = "number_or_null")]
    pub(crate) loss: f64,
    /// `exp(loss)`
    #[serde(deserialize_with = "number_or_null")]
    pub(crate) perplexity: f64,
    /// Labels.
    pub(crate) tokens: u64,
}

/// A line of `answers.jsonl`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct AnswerRecord {
    /// Updates before it.
    pub(crate) step: u64,
    /// As in `prompts`.
    pub(crate) prompt: String,
    /// What the model said.
    pub(crate) answer: String,
    /// Tokens of the answer.
    pub(crate) tokens: u64,
}

/// `training.json`.
#[derive(Debug, Serialize)]
pub(crate) struct Summary {
    /// The version of pipe.
    pub(crate) pipe: &'static str,
    /// Updates done.
    pub(crate) updates: u64,
    /// Samples that there are.
    pub(crate) samples: usize,
    /// Tokens seen, in all updates.
    pub(crate) tokens: u64,
    /// Values of all trained tensors.
    pub(crate) trained_values: u64,
    /// The semantic part of the configuration.
    pub(crate) config: serde_json::Map<String, serde_json::Value>,
}

/// Records as JSON lines.
pub(crate) fn to_lines<T: Serialize>(records: &[T]) -> Result<Vec<u8>, serde_json::Error> {
    let mut lines = Vec::new();
    for record in records {
        serde_json::to_writer(&mut lines, record)?;
        lines.push(b'\n');
    }
    Ok(lines)
}

/// The records of JSON lines.
pub(crate) fn from_lines<T: DeserializeOwned>(file: &'static str, lines: &[u8]) -> Result<Vec<T>, Error> {
    let lines = lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).map_err(|source| Error::Record { file, source })).collect()
}

/// Writes a file of the artifact.
pub(crate) fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    std::fs::write(path, bytes).map_err(|source| Error::Write { path: path.to_owned(), source })
}
