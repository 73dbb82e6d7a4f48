//! The journal of the run, written while it goes on.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::PathBuf,
    time::Instant,
};

use pipe_stage::{Digest, FailureClass};

use crate::{
    cache::{ActionRecord, CacheError, Home, Key},
    config::{Pipeline, StageName, StageSpec},
    plan::Reason,
    report::{Outcome, StageFailure},
    runs::{
        self, Counts, Header, Journal, Line, Machine, Measure, RunEnded, RunId, RunStatus, Runs, StageBegan,
        StageEnded, figures, resolved_yaml,
    },
    selection::Request,
};

/// The books of a run that goes on. Nothing is written before a stage begins or the run ends.
pub(super) struct Books {
    home: Home,
    id: RunId,
    resolved: Digest,
    journal: Journal,
    clock: Instant,
    stages: usize,
    counts: Counts,
    measure: Option<Measure>,
    /// How often each stage that is not up to date has begun.
    attempts: HashMap<StageName, usize>,
}

impl Books {
    /// Opens the books of a run of `stages` that began at `clock`. `request`: what was asked for; `resolved`: the
    /// digest of the resolved pipeline, if that is known.
    pub(super) fn open<'run>(
        pipeline: &Pipeline,
        home: &Home,
        stages: impl Iterator<Item = &'run StageSpec>,
        request: &Request,
        resolved: Option<Digest>,
        clock: Instant,
    ) -> Result<Self, CacheError> {
        let runs = Runs::new(home);
        let resolved = runs.keep_resolved(resolved, || resolved_yaml(pipeline))?;
        let (id, mut journal) = runs.begin()?;
        let file_name = pipeline.source.path().file_name().unwrap_or_default();
        journal.push(&Line::RunBegan(Header {
            id: id.clone(),
            pipeline: pipeline.name.clone(),
            // A path that is no text is told as one, or the whole line could not be written.
            file: pipeline.folder.join(file_name).to_string_lossy().into_owned().into(),
            started: jiff::Timestamp::now(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            set: pipeline.source.overrides().map(str::to_owned).collect(),
            asked: request.into(),
            resolved,
            machine: Machine::here(),
        }));
        let stages: indexmap::IndexMap<String, String> =
            stages.map(|spec| (spec.name.to_string(), spec.declaration.kind.to_owned())).collect();
        let count = stages.len();
        journal.push(&Line::Selected { stages });
        Ok(Self {
            home: home.clone(),
            id,
            resolved,
            journal,
            clock,
            stages: count,
            counts: Counts::default(),
            measure: None,
            attempts: HashMap::new(),
        })
    }

    /// The digest of the resolved pipeline.
    pub(super) fn resolved(&self) -> Digest {
        self.resolved
    }

    /// The run's id.
    pub(super) fn run(&self) -> String {
        self.id.to_string()
    }

    /// The log of the stage's present attempt, relative to the home.
    pub(super) fn log(&self, stage: &StageName) -> PathBuf {
        Runs::log(&self.id, stage.as_str(), self.attempts.get(stage).copied().unwrap_or(1))
    }

    /// How many stages have ended in which way.
    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// A stage was up to date.
    pub(super) fn hit(&mut self, stage: &StageName, key: &Key, outputs: &BTreeMap<String, Digest>) {
        self.counts.add(runs::Outcome::Hit);
        self.journal.push(&Line::StageHit { stage: stage.to_string(), key: *key, outputs: outputs.clone() });
    }

    /// A stage is about to run, for the first time in this run or again. From here on the journal is on disk: a run that
    /// is killed leaves a trace.
    pub(super) fn began(&mut self, stage: &StageName, key: &Key, reasons: &[Reason]) -> Result<(), CacheError> {
        if self.attempts.is_empty() {
            let logs = self.home.root().join(Runs::logs(&self.id));
            fs::create_dir_all(&logs).map_err(|source| CacheError::Io {
                action: "create the folder",
                path: logs,
                source,
            })?;
        }
        *self.attempts.entry(stage.clone()).or_default() += 1;
        self.journal.push(&Line::StageBegan(StageBegan {
            stage: stage.to_string(),
            at: jiff::Timestamp::now(),
            key: *key,
            reasons: reasons.iter().map(Reason::to_string).collect(),
            because: reasons.iter().flat_map(Reason::stages).map(StageName::to_string).collect(),
            log: self.log(stage),
        }));
        self.journal.write()
    }

    /// An attempt failed, and another one will follow.
    pub(super) fn attempt_failed(&mut self, stage: &StageName, failure: &StageFailure, seconds: f64) {
        let (stage, error) = (stage.to_string(), failure.chain.clone());
        self.journal.push(&Line::AttemptFailed { stage, duration_seconds: seconds, error });
        self.write();
    }

    /// A stage ran to its end.
    pub(super) fn ran(&mut self, stage: &StageName, record: &ActionRecord) {
        self.counts.add(runs::Outcome::Ran);
        let metrics = record.metrics.iter().map(|(name, value)| (name.as_str(), *value));
        let measure = Measure::among(stage.as_str(), record.key, figures(&record.figures).chain(metrics));
        self.measure = measure.or_else(|| self.measure.take());
        self.ended(StageEnded {
            stage: stage.to_string(),
            outcome: runs::Outcome::Ran,
            duration_seconds: record.duration_seconds,
            outputs: record.outputs.clone(),
            figures: record.figures.clone(),
            metrics: record.metrics.clone(),
            environment: Some(record.environment.clone()),
            error: Vec::new(),
        });
    }

    /// A stage is up to date, but a copy of its outputs could not be made. `key`: of one that did not run.
    pub(super) fn failed_copy(
        &mut self,
        stage: &StageName,
        key: Option<&Key>,
        outputs: &BTreeMap<String, Digest>,
        failure: &StageFailure,
        seconds: f64,
    ) {
        if let Some(key) = key {
            self.journal.push(&Line::StageHit { stage: stage.to_string(), key: *key, outputs: outputs.clone() });
        }
        self.counts.add(runs::Outcome::Failed);
        self.ended(StageEnded {
            stage: stage.to_string(),
            outcome: runs::Outcome::Failed,
            duration_seconds: seconds,
            outputs: outputs.clone(),
            figures: indexmap::IndexMap::new(),
            metrics: indexmap::IndexMap::new(),
            environment: None,
            error: failure.chain.clone(),
        });
    }

    /// A stage made no artifact.
    pub(super) fn failed(&mut self, stage: &StageName, failure: &StageFailure, seconds: f64) {
        let outcome = match failure.class {
            FailureClass::Cancelled => runs::Outcome::Cancelled,
            FailureClass::Stage | FailureClass::Environment => runs::Outcome::Failed,
        };
        self.counts.add(outcome);
        self.ended(StageEnded {
            stage: stage.to_string(),
            outcome,
            duration_seconds: seconds,
            outputs: BTreeMap::new(),
            figures: indexmap::IndexMap::new(),
            metrics: indexmap::IndexMap::new(),
            environment: None,
            error: failure.chain.clone(),
        });
    }

    fn ended(&mut self, ended: StageEnded) {
        self.journal.push(&Line::StageEnded(ended));
        self.write();
    }

    fn write(&mut self) {
        // What the disk refuses now is tried again; the end of the run will tell if it still does.
        if let Err(error) = self.journal.write() {
            tracing::warn!(error = &error as &dyn std::error::Error, "the end of a stage is not in the journal");
        }
    }

    /// Closes the books, and says how long the run took, in seconds.
    pub(super) fn close(mut self, outcome: Outcome) -> Result<f64, CacheError> {
        let status = match outcome {
            Outcome::Done => RunStatus::Done,
            Outcome::StageFailed | Outcome::EnvironmentLacks => RunStatus::Failed,
            Outcome::Cancelled => RunStatus::Cancelled,
        };
        let Counts { hits, ran, failed, cancelled, .. } = self.counts;
        let skipped = self.stages.saturating_sub(hits + ran + failed + cancelled);
        let duration_seconds = self.clock.elapsed().as_secs_f64();
        self.journal.push(&Line::RunEnded(RunEnded {
            status,
            at: jiff::Timestamp::now(),
            duration_seconds,
            counts: Counts { skipped, ..self.counts },
            measure: self.measure,
        }));
        self.journal.write()?;
        // A run in which nothing happened can be done again as fast as it could be made durable.
        if !self.attempts.is_empty() {
            self.journal.sync()?;
        }
        Ok(self.clock.elapsed().as_secs_f64())
    }
}
