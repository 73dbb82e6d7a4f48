//! The record of one run, as it stands in memory. On disk it is a [journal](super::journal).

use std::{collections::BTreeMap, fmt, path::PathBuf};

use indexmap::IndexMap;
use pipe_stage::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Machine, RunId};
use crate::{
    cache::{ActionRecord, Environment, Key},
    config::StageName,
    selection::Request,
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
    /// Which stages it was about.
    pub asked: Asked,
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

/// Which stages a run was asked for: see [`Request`](crate::selection::Request).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// These, with all that they need; none means all stages.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<String>,
    /// Just these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub only: Vec<String>,
    /// These and all that depends on them, although nothing changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<String>,
    /// These, although nothing changed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub force: Vec<String>,
    /// Every stage, although nothing changed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub force_all: bool,
}

impl Asked {
    /// Whether it was about the whole pipeline.
    pub fn is_for_all(&self) -> bool {
        self.targets.is_empty() && self.only.is_empty()
    }
}

impl From<&Request> for Asked {
    fn from(request: &Request) -> Self {
        let names = |stages: &[StageName]| stages.iter().map(StageName::to_string).collect();
        Self {
            targets: names(&request.targets),
            only: names(&request.only),
            from: names(&request.from),
            force: names(&request.force),
            force_all: request.force_all,
        }
    }
}

/// `parts, --only a, b --force c`.
impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { targets, only, from, force, force_all } = self;
        let named = [("", targets), ("--only ", only), ("--from ", from), ("--force ", force)];
        let told = named.iter().filter(|(_, stages)| !stages.is_empty());
        let mut told: Vec<String> = told.map(|(flag, stages)| format!("{flag}{}", stages.join(", "))).collect();
        told.extend(force_all.then(|| "--force-all".to_owned()));
        f.write_str(&told.join(" "))
    }
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
