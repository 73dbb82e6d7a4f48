//! The record of one run, as it stands in memory. On disk it is a [journal](super::journal).

use std::{collections::BTreeMap, path::PathBuf};

use indexmap::IndexMap;
use pipe_stage::{Digest, Resources};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Machine, RunId};
use crate::{
    cache::{ActionRecord, Environment, Key},
    config::{Pipeline, StageSpec},
};

/// What one execution of a pipeline did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunRecord {
    /// Its name.
    pub id: RunId,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The pipeline's file, absolute.
    pub file: PathBuf,
    /// What stood behind each `--set`.
    pub set: Vec<String>,
    /// The stages that were asked for; none means all.
    pub targets: Vec<String>,
    /// The digest of the pipeline as it was meant: see [`Runs::resolved`](super::Runs::resolved).
    pub resolved: Digest,
    /// How it ended.
    pub status: RunStatus,
    /// When it began.
    pub started: jiff::Timestamp,
    /// When it ended; `None` while it goes on, and if it was killed.
    pub ended: Option<jiff::Timestamp>,
    /// How long it took, by a clock that nobody sets; 0 until it ends.
    pub duration_seconds: f64,
    /// The version of `pipe`.
    pub version: String,
    /// What it ran on.
    pub machine: Machine,
    /// What became of each stage of the run, in the order of the work.
    pub stages: IndexMap<String, StageRun>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Not yet.
    Running,
    /// Every stage is up to date.
    Done,
    /// A stage failed.
    Failed,
    /// It was asked to stop.
    Cancelled,
    /// Its process died before it could say how it ended.
    Killed,
}

/// What became of a stage in a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageRun {
    /// Its kind.
    pub kind: String,
    /// How it ended.
    pub outcome: Outcome,
    /// Its key; `None` if its inputs were never made.
    pub key: Option<Key>,
    /// Its artifacts by the name of the output; none unless it is up to date.
    pub outputs: BTreeMap<String, Digest>,
    /// Why it ran, in words.
    pub reasons: Vec<String>,
    /// The stages whose new output is among the reasons.
    pub because: Vec<String>,
    /// Each time that its worker was started in this run, in order.
    pub attempts: Vec<AttemptRun>,
    /// How long its last attempt took; 0 for a hit.
    pub duration_seconds: f64,
    /// What it reported of the finished work. Of a hit: see [`Runs::complete`](super::Runs::complete).
    pub figures: IndexMap<String, Value>,
    /// The last measurements that it reported. Of a hit: see [`Runs::complete`](super::Runs::complete).
    pub metrics: IndexMap<String, f64>,
    /// What it ran on. Of a hit: see [`Runs::complete`](super::Runs::complete).
    pub environment: Environment,
    /// The log of its last attempt, relative to the home. Of a hit: see [`Runs::complete`](super::Runs::complete).
    pub log: Option<PathBuf>,
    /// What it failed of: the error and its causes, outermost first.
    pub error: Vec<String>,
}

/// One start of a stage's worker.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttemptRun {
    /// When.
    pub started: jiff::Timestamp,
    /// How it ended; `None` if it goes on, or the run was killed.
    pub outcome: Option<Outcome>,
    /// How long it took; 0 until it ends.
    pub duration_seconds: f64,
    /// Its log, relative to the home.
    pub log: PathBuf,
    /// What it failed of: the error and its causes, outermost first.
    pub error: Vec<String>,
}

/// How a stage ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Its artifacts were there.
    Hit,
    /// It ran, and made them.
    Ran,
    /// It failed.
    Failed,
    /// It was stopped.
    Cancelled,
    /// The run went on, or was killed, while it ran.
    Unfinished,
    /// Its turn did not come.
    Skipped,
}

/// How many stages ended in which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Counts {
    /// [`Outcome::Hit`]
    pub hits: usize,
    /// [`Outcome::Ran`]
    pub ran: usize,
    /// [`Outcome::Failed`]
    pub failed: usize,
    /// [`Outcome::Cancelled`]
    pub cancelled: usize,
    /// [`Outcome::Unfinished`]
    pub unfinished: usize,
    /// [`Outcome::Skipped`]
    pub skipped: usize,
}

impl Counts {
    /// Counts one more.
    pub fn add(&mut self, outcome: Outcome) {
        *match outcome {
            Outcome::Hit => &mut self.hits,
            Outcome::Ran => &mut self.ran,
            Outcome::Failed => &mut self.failed,
            Outcome::Cancelled => &mut self.cancelled,
            Outcome::Unfinished => &mut self.unfinished,
            Outcome::Skipped => &mut self.skipped,
        } += 1;
    }
}

impl RunRecord {
    /// The artifact of a stage's output, if the run brought it up to date.
    pub fn artifact(&self, stage: &str, output: &str) -> Option<Digest> {
        self.stages.get(stage)?.outputs.get(output).copied()
    }

    /// How many of its stages ended in which way.
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        self.stages.values().for_each(|stage| counts.add(stage.outcome));
        counts
    }
}

impl StageRun {
    /// Fills in what a hit shares with the run that made its artifacts.
    pub(super) fn complete(&mut self, action: ActionRecord) {
        if self.outcome == Outcome::Hit {
            (self.figures, self.metrics) = (action.figures, action.metrics);
            (self.environment, self.log) = (action.environment, Some(action.log));
        }
    }

    /// A stage whose turn has not come.
    pub fn skipped(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            outcome: Outcome::Skipped,
            key: None,
            outputs: BTreeMap::new(),
            reasons: Vec::new(),
            because: Vec::new(),
            attempts: Vec::new(),
            duration_seconds: 0.0,
            figures: IndexMap::new(),
            metrics: IndexMap::new(),
            environment: Environment::default(),
            log: None,
            error: Vec::new(),
        }
    }
}

/// The pipeline with nothing left to fill in, as YAML: parameters put in, overrides applied, defaults filled in. It can
/// be run as it stands.
pub fn resolved_yaml(pipeline: &Pipeline) -> String {
    let stages: serde_json::Map<String, Value> =
        pipeline.stages.iter().map(|(name, spec)| (name.to_string(), resolved_stage(pipeline, spec))).collect();
    let pipeline = json!({ "name": pipeline.name, "stages": stages });
    // JSON of strings, numbers, lists and maps is always YAML.
    serde_yaml::to_string(&pipeline).unwrap_or_default()
}

fn resolved_stage(pipeline: &Pipeline, spec: &StageSpec) -> Value {
    let mut stage = serde_json::Map::from_iter([("kind".to_owned(), spec.declaration.kind.into())]);
    let inputs = resolved_inputs(pipeline, spec);
    if !inputs.is_empty() {
        stage.insert("inputs".to_owned(), Value::Object(inputs));
    }
    stage.insert("with".to_owned(), escaped(&spec.config));
    let Resources { cpus, memory_bytes, gpus, time_seconds } = spec.resources;
    let resources = [
        ("cpus", cpus.map(Value::from)),
        ("memory", memory_bytes.map(Value::from)),
        ("gpus", (gpus > 0).then(|| gpus.into())),
        ("time", time_seconds.map(seconds)),
    ];
    let resources: serde_json::Map<String, Value> =
        resources.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if !resources.is_empty() {
        stage.insert("resources".to_owned(), Value::Object(resources));
    }
    if spec.retries > 0 {
        stage.insert("retries".to_owned(), spec.retries.into());
    }
    if let Some(timeout) = spec.timeout {
        stage.insert("timeout".to_owned(), seconds(timeout.as_secs()));
    }
    let checkout = spec.checkout.iter().map(|(output, path)| (output.clone(), path.to_string_lossy().into()));
    let checkout: serde_json::Map<String, Value> = checkout.collect();
    if !checkout.is_empty() {
        stage.insert("outputs".to_owned(), escaped(&Value::Object(checkout)));
    }
    Value::Object(stage)
}

fn resolved_inputs(pipeline: &Pipeline, spec: &StageSpec) -> serde_json::Map<String, Value> {
    let source = |input: &crate::config::InputRef| {
        let only = pipeline.stages.get(&input.stage).is_some_and(|maker| maker.outputs.len() == 1);
        if only { input.stage.to_string() } else { format!("{}.{}", input.stage, input.output) }
    };
    let taken = spec.inputs.iter().map(|(port, sources)| {
        let value = match &sources[..] {
            [one] => source(one).into(),
            several => several.iter().map(source).collect(),
        };
        (port.clone(), value)
    });
    let files = spec.user_files.iter().filter_map(|file| {
        let name = file.field.strip_prefix("inputs.")?;
        Some((name.to_owned(), escaped(&format!("file://{}", file.path.display()).into())))
    });
    taken.chain(files).collect()
}

fn seconds(seconds: u64) -> Value {
    format!("{seconds}s").into()
}

/// The same value, with nothing in it that would be taken for a parameter.
fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace("${", "$${").into(),
        Value::Array(items) => items.iter().map(escaped).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), escaped(value))).collect(),
        value => value.clone(),
    }
}
