//! What earlier runs of a pipeline have to say to the next one: which stages did not come to their end, and why the
//! others ran.

use std::{collections::HashMap, path::Component};

use serde::Serialize;

use super::{Outcome, RunId, RunRecord, RunStatus, Runs};
use crate::cache::{ActionRecord, Key};

/// The runs that failed lately are looked at, this many of them.
const FAILED_RUNS: usize = 10;

/// An attempt at a stage that did not bring it up to date.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Unsuccessful {
    /// The run.
    pub run: RunId,
    /// The key that the stage had.
    pub key: Key,
    /// [`Outcome::Failed`], [`Outcome::Cancelled`], or [`Outcome::Unfinished`] if the run was killed.
    pub outcome: Outcome,
    /// What it failed of: the error and its causes, outermost first.
    pub error: Vec<String>,
}

/// How the artifacts of a record came to be.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Story {
    /// The run that made them.
    pub run: RunId,
    /// When they were made.
    pub ended: jiff::Timestamp,
    /// How long that took.
    pub duration_seconds: f64,
    /// Why the stage ran, in words; none if the journal of the run is gone.
    pub reasons: Vec<String>,
}

impl Runs {
    /// The stages of a pipeline whose last attempt failed, was stopped or killed. Looks back no further than to the last
    /// run in which all was well, and passes over runs that go on.
    pub fn unsuccessful(&self, pipeline: &str) -> HashMap<String, Unsuccessful> {
        let mut last: HashMap<String, Option<Unsuccessful>> = HashMap::new();
        let mut looked_at = 0;
        for id in self.ids() {
            let Some(header) = self.header(&id).filter(|header| header.pipeline == pipeline) else { continue };
            let Some(summary) = self.summary(&id) else { continue };
            match summary.status {
                RunStatus::Running => continue,
                // The whole pipeline was up to date: what failed before is history.
                RunStatus::Done if header.asked.is_for_all() => break,
                _ => looked_at += 1,
            }
            let Some(record) = self.get(&id) else { continue };
            for (stage, run) in record.stages {
                let Some(key) = run.key.filter(|_| run.outcome != Outcome::Skipped) else { continue };
                let well = matches!(run.outcome, Outcome::Hit | Outcome::Ran);
                let attempt = Unsuccessful { run: record.id.clone(), key, outcome: run.outcome, error: run.error };
                last.entry(stage).or_insert_with(|| (!well).then_some(attempt));
            }
            if looked_at == FAILED_RUNS {
                break;
            }
        }
        last.into_iter().filter_map(|(stage, attempt)| Some((stage, attempt?))).collect()
    }
}

impl Story {
    /// How the artifacts of an action record came to be, with the record of the run that made them if it is there.
    pub(crate) fn of(record: &ActionRecord, run: RunId, journal: Option<&RunRecord>) -> Self {
        let stage = journal.and_then(|journal| journal.stages.get(&record.stage));
        Self {
            run,
            ended: record.ended,
            duration_seconds: record.duration_seconds,
            reasons: stage.map(|stage| stage.reasons.clone()).unwrap_or_default(),
        }
    }
}

impl RunId {
    /// The run that made the artifacts of an action record: the one that wrote its log, `logs/RUN/STAGE.log`.
    pub(crate) fn that_made(record: &ActionRecord) -> Option<Self> {
        match record.log.components().nth(1)? {
            Component::Normal(run) => run.to_str()?.parse().ok(),
            _ => None,
        }
    }
}
