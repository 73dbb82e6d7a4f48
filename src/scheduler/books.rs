//! The record of the run, kept up to date while it goes on.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use pipe_stage::{Digest, FailureClass};

use crate::{
    cache::{ActionRecord, CacheError, Home, Key},
    config::{Pipeline, StageName, StageSpec},
    report::{Outcome, StageFailure},
    runs::{self, RunRecord, RunStatus, Runs, StageRun},
};

/// The record of a run that goes on.
pub(super) struct Books {
    runs: Runs,
    record: RunRecord,
    logs: PathBuf,
    clock: Instant,
}

impl Books {
    /// Opens the record of a run of `stages` that began at `clock`.
    pub(super) fn open<'run>(
        pipeline: &Pipeline,
        home: &Home,
        stages: impl Iterator<Item = &'run StageSpec>,
        clock: Instant,
    ) -> Result<Self, CacheError> {
        let runs = Runs::new(home);
        let mut record = RunRecord::begin(runs.begin()?, pipeline);
        record.stages = stages.map(|spec| (spec.name.to_string(), StageRun::skipped(spec.declaration.kind))).collect();
        let logs = home.root().join("logs").join(record.id.as_str());
        Ok(Self { runs, record, logs, clock })
    }

    /// The run's id.
    pub(super) fn run(&self) -> String {
        self.record.id.to_string()
    }

    /// The log of a stage, relative to the home.
    pub(super) fn log(&self, stage: &StageName) -> PathBuf {
        Runs::log(&self.record.id, stage.as_str())
    }

    /// How many stages have ended in this way.
    pub(super) fn count(&self, outcome: runs::Outcome) -> usize {
        self.record.stages.values().filter(|stage| stage.outcome == outcome).count()
    }

    /// A stage was up to date; `record` tells how its artifacts were made.
    pub(super) fn hit(
        &mut self,
        stage: &StageName,
        key: &Key,
        outputs: &BTreeMap<String, Digest>,
        record: Option<ActionRecord>,
    ) {
        let Some(entry) = self.record.stages.get_mut(stage.as_str()) else { return };
        (entry.outcome, entry.key, entry.outputs) = (runs::Outcome::Hit, Some(*key), outputs.clone());
        if let Some(record) = record {
            (entry.figures, entry.environment, entry.log) = (record.figures, record.environment, Some(record.log));
        }
    }

    /// A stage is about to run. From here on the record is on disk: a run that is killed leaves a trace.
    pub(super) fn began(&mut self, stage: &StageName, key: &Key, reasons: Vec<String>) -> Result<(), CacheError> {
        let log = self.log(stage);
        if let Some(entry) = self.record.stages.get_mut(stage.as_str()) {
            (entry.key, entry.reasons, entry.log) = (Some(*key), reasons, Some(log));
        }
        self.keep()
    }

    /// A stage ran to its end.
    pub(super) fn ran(&mut self, stage: &StageName, record: &ActionRecord) {
        let Some(entry) = self.record.stages.get_mut(stage.as_str()) else { return };
        entry.outcome = runs::Outcome::Ran;
        entry.outputs.clone_from(&record.outputs);
        entry.duration_seconds = record.duration_seconds;
        entry.figures.clone_from(&record.figures);
        entry.environment.clone_from(&record.environment);
    }

    /// A stage made no artifact.
    pub(super) fn failed(&mut self, stage: &StageName, failure: &StageFailure, seconds: f64) {
        let Some(entry) = self.record.stages.get_mut(stage.as_str()) else { return };
        entry.outcome = match failure.class {
            FailureClass::Cancelled => runs::Outcome::Cancelled,
            FailureClass::Stage | FailureClass::Environment => runs::Outcome::Failed,
        };
        entry.duration_seconds = seconds;
        entry.error.clone_from(&failure.chain);
    }

    /// Closes the record, and says how long the run took, in seconds.
    pub(super) fn close(mut self, outcome: Outcome) -> Result<f64, CacheError> {
        self.record.status = match outcome {
            Outcome::Done => RunStatus::Done,
            Outcome::StageFailed | Outcome::EnvironmentLacks => RunStatus::Failed,
            Outcome::Cancelled => RunStatus::Cancelled,
        };
        self.record.ended = Some(jiff::Timestamp::now());
        self.record.duration_seconds = self.clock.elapsed().as_secs_f64();
        self.keep()?;
        // A run in which nothing ran has no logs; a folder that holds some stays.
        let _ = fs::remove_dir(&self.logs);
        Ok(self.clock.elapsed().as_secs_f64())
    }

    fn keep(&self) -> Result<(), CacheError> {
        self.runs.put(&self.record)
    }
}
