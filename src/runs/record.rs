//! The record of one run.

use std::{collections::BTreeMap, path::PathBuf};

use indexmap::IndexMap;
use pipe_stage::{Digest, Resources};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::RunId;
use crate::{
    cache::{Environment, Key},
    config::{Pipeline, StageSpec},
};

/// What one execution of a pipeline did.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunRecord {
    /// Its name.
    pub id: RunId,
    /// The name of the pipeline.
    pub pipeline: String,
    /// The pipeline's file, absolute.
    pub file: PathBuf,
    /// The pipeline as it was meant, as YAML: parameters put in, overrides applied, defaults filled in.
    pub resolved: String,
    /// How it ended.
    pub status: RunStatus,
    /// When it began.
    pub started: jiff::Timestamp,
    /// When it ended; `None` while it goes on.
    pub ended: Option<jiff::Timestamp>,
    /// How long it took, by a clock that nobody sets.
    pub duration_seconds: f64,
    /// The version of `pipe`.
    pub version: String,
    /// What became of each stage of the run, in the order of the work.
    pub stages: IndexMap<String, StageRun>,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Not yet; or it was killed.
    Running,
    /// Every stage is up to date.
    Done,
    /// A stage failed.
    Failed,
    /// It was asked to stop.
    Cancelled,
}

/// What became of a stage in a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
    /// How long its worker took.
    pub duration_seconds: f64,
    /// Its figures: of this run, or of the one that made the artifacts.
    pub figures: IndexMap<String, Value>,
    /// What it ran on.
    pub environment: Environment,
    /// Its log, relative to the home; that of an earlier run if it was a hit.
    pub log: Option<PathBuf>,
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
    /// Its turn did not come.
    Skipped,
}

impl RunRecord {
    /// The record of a run that begins now.
    pub fn begin(id: RunId, pipeline: &Pipeline) -> Self {
        Self {
            id,
            pipeline: pipeline.name.clone(),
            file: pipeline.source.path().to_owned(),
            resolved: resolved_yaml(pipeline),
            status: RunStatus::Running,
            started: jiff::Timestamp::now(),
            ended: None,
            duration_seconds: 0.0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            stages: IndexMap::new(),
        }
    }

    /// The artifact of a stage's output, if the run brought it up to date.
    pub fn artifact(&self, stage: &str, output: &str) -> Option<Digest> {
        self.stages.get(stage)?.outputs.get(output).copied()
    }
}

impl StageRun {
    /// A stage whose turn has not come.
    pub fn skipped(kind: &str) -> Self {
        Self {
            kind: kind.to_owned(),
            outcome: Outcome::Skipped,
            key: None,
            outputs: BTreeMap::new(),
            reasons: Vec::new(),
            duration_seconds: 0.0,
            figures: IndexMap::new(),
            environment: Environment::default(),
            log: None,
            error: Vec::new(),
        }
    }
}

/// The pipeline with nothing left to fill in. It can be run as it stands.
fn resolved_yaml(pipeline: &Pipeline) -> String {
    let stages: serde_json::Map<String, Value> =
        pipeline.stages.iter().map(|(name, spec)| (name.to_string(), resolved_stage(spec))).collect();
    let pipeline = json!({ "name": pipeline.name, "stages": stages });
    // JSON of strings, numbers, lists and maps is always YAML.
    serde_yaml::to_string(&pipeline).unwrap_or_default()
}

fn resolved_stage(spec: &StageSpec) -> Value {
    let mut stage = serde_json::Map::from_iter([("kind".to_owned(), spec.declaration.kind.into())]);
    if !spec.inputs.is_empty() {
        let source = |input: &crate::config::InputRef| {
            let only = input.output == "out";
            if only { input.stage.to_string() } else { format!("{}.{}", input.stage, input.output) }
        };
        let inputs = spec.inputs.iter().map(|(port, sources)| {
            let value = match &sources[..] {
                [one] => source(one).into(),
                several => several.iter().map(source).collect(),
            };
            (port.clone(), value)
        });
        stage.insert("inputs".to_owned(), Value::Object(inputs.collect()));
    }
    stage.insert("with".to_owned(), escaped(&spec.config));
    let Resources { cpus, gpus, .. } = spec.resources;
    if spec.resources != Resources::default() {
        let mut resources = serde_json::Map::new();
        if let Some(cpus) = cpus {
            resources.insert("cpus".to_owned(), cpus.into());
        }
        if gpus > 0 {
            resources.insert("gpus".to_owned(), gpus.into());
        }
        stage.insert("resources".to_owned(), Value::Object(resources));
    }
    Value::Object(stage)
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
