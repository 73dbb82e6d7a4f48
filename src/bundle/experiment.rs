//! What `experiment.json` tells of a run: everything that a reproduction is compared with.
//!
//! It holds no value of an environment variable, and nothing that a guess of one could be checked with: a stage that
//! was given variables stands here without its key.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use pipe_stage::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    cache::{Environment, FileIdentity, Key},
    runs::{Machine, Outcome, RunId, RunStatus},
};

/// A run, as others may see it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// The run.
    pub run: RunId,
    /// The name of its pipeline.
    pub pipeline: String,
    /// How it ended.
    pub status: RunStatus,
    /// When it began.
    pub started: jiff::Timestamp,
    /// When it ended.
    pub ended: Option<jiff::Timestamp>,
    /// How long it took.
    pub duration_seconds: f64,
    /// The version of `pipe` that ran it.
    pub version: String,
    /// The machine that it ran on.
    pub machine: Machine,
    /// Its stages, in the order of the work.
    pub stages: IndexMap<String, ExperimentStage>,
    /// The artifacts whose files are in the bundle, not only the list of them.
    pub artifacts: BTreeSet<Digest>,
}

/// What became of a stage.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExperimentStage {
    /// Its kind.
    pub kind: String,
    /// The version of the kind; `None` if the stage never came to its turn.
    pub kind_version: Option<u32>,
    /// How it ended.
    pub outcome: Outcome,
    /// Its key; `None` if it has none, or variables of the environment stand in it.
    pub key: Option<Key>,
    /// The artifacts that it took, by the name of the input.
    pub inputs: BTreeMap<String, Vec<Digest>>,
    /// The user's files that it took, by the field that names them.
    pub files: BTreeMap<String, FileIdentity>,
    /// The environment variables that it was given, and whether they were set.
    pub variables: BTreeMap<String, bool>,
    /// The artifacts that came out, by the name of the output.
    pub outputs: BTreeMap<String, Digest>,
    /// What it reported of the finished work.
    pub figures: IndexMap<String, Value>,
    /// The last measurements that it reported.
    pub metrics: IndexMap<String, f64>,
    /// What it ran on.
    pub environment: Environment,
    /// How long its worker took; 0 if its artifacts were there already.
    pub duration_seconds: f64,
    /// What it failed of.
    pub error: Vec<String>,
    /// The entry with its log.
    pub log: Option<String>,
}
