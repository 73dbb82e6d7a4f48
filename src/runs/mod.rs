//! Run records: what each execution of a pipeline did, kept also when it failed.
//!
//! A run writes a [journal] while it goes on; everybody else reads. Nothing here decides, and nothing here waits: to
//! look at a run that goes on never holds it up.

mod choose;
mod diff;
mod history;
mod holding;
mod id;
mod journal;
mod machine;
mod measure;
mod read;
mod record;
mod resolved;
mod retention;

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pipe_stage::Digest;

use crate::cache::{CacheError, Home, Key, Records};

pub use choose::ChooseError;
pub use diff::{Change, FigureChange, InRuns, Pair, RunDiff, Side, StageDiff};
pub use history::{Story, Unsuccessful};
pub use holding::Holder;
pub use id::{InvalidRunId, RunId};
pub(crate) use journal::{Header, Journal, Line, RunEnded, StageBegan, StageEnded};
pub use machine::Machine;
pub use measure::Measure;
pub(crate) use measure::figures;
pub use read::RunSummary;
pub use record::{Asked, AttemptRun, Counts, Outcome, RunRecord, RunStatus, StageRun};
pub use resolved::resolved_yaml;
#[cfg(any(test, fuzzing))]
pub(crate) use resolved::to_yaml;
pub use retention::{Judged, Retention, Stays, Unclear};

/// The run records of a home.
#[derive(Debug, Clone)]
pub struct Runs {
    home: Home,
}

impl Runs {
    /// The runs of `home`.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Opens the journal of a run that begins now, under an id that no other run has. The run counts as alive until the
    /// journal is dropped, or the process dies.
    ///
    /// # Errors
    /// If the journal cannot be made.
    pub(crate) fn begin(&self) -> Result<(RunId, Journal), CacheError> {
        let failed = |action, path: &Path, source| CacheError::Io { action, path: path.to_owned(), source };
        // Only a clock that was set back is behind the last change of the folder: then names have to be looked at.
        let newest = self.is_ahead_of_clock().then(|| self.ids().into_iter().next()).flatten();
        loop {
            let id = RunId::generate(newest.as_ref());
            let path = self.path(&id);
            match Journal::create(path.clone()) {
                Ok(journal) => {
                    if newest.is_some() {
                        self.keep_order();
                    }
                    return Ok((id, journal));
                }
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    let folder = self.folder();
                    fs::create_dir_all(&folder).map_err(|source| failed("create the folder", &folder, source))?;
                }
                Err(error) => return Err(failed("create", &path, error)),
            }
        }
    }

    fn is_ahead_of_clock(&self) -> bool {
        let changed = fs::metadata(self.folder()).and_then(|folder| folder.modified());
        changed.is_ok_and(|changed| changed > SystemTime::now())
    }

    /// Has the next run begin after the newest one also where a clock that was set back says otherwise. To be called
    /// after the folder of the journals was changed.
    pub(crate) fn keep_order(&self) {
        let newest = self.ids().first().and_then(RunId::time);
        if let Some(newest) = newest.filter(|newest| *newest > SystemTime::now()) {
            let marked = fs::File::open(self.folder()).and_then(|folder| folder.set_modified(newest));
            if let Err(error) = marked {
                tracing::debug!(%error, "the next run may get a name that sorts before this one");
            }
        }
    }

    /// The folder of a run's logs, relative to the home: `logs/RUN`.
    pub fn logs(id: &RunId) -> PathBuf {
        ["logs", id.as_str()].iter().collect()
    }

    /// The log of a stage's attempt, counted from 1, relative to the home: `logs/RUN/STAGE.log`, then
    /// `logs/RUN/STAGE~2.log`: no name of a stage has a `~`, and one may end in `.2`.
    pub fn log(id: &RunId, stage: &str, attempt: usize) -> PathBuf {
        let name = if attempt <= 1 { format!("{stage}.log") } else { format!("{stage}~{attempt}.log") };
        Self::logs(id).join(name)
    }

    /// Keeps the text of a resolved pipeline, and gives its digest. `known` is the digest if the caller can tell it
    /// without the text, which is then only made if the home does not have it.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep_resolved(&self, known: Option<Digest>, yaml: impl FnOnce() -> String) -> Result<Digest, CacheError> {
        if let Some(digest) = known.filter(|digest| self.pipeline(digest).exists()) {
            return Ok(digest);
        }
        let yaml = yaml();
        let digest = Digest::of(yaml.as_bytes());
        let path = self.pipeline(&digest);
        if !path.exists() {
            self.home.write(&path, yaml.as_bytes())?;
        }
        Ok(digest)
    }

    /// The resolved pipeline of this digest, as YAML: what a run meant, with nothing left to fill in. `None` if it is
    /// gone or damaged.
    pub fn resolved(&self, digest: &Digest) -> Option<String> {
        let text = fs::read_to_string(self.pipeline(digest)).ok()?;
        (Digest::of(text.as_bytes()) == *digest).then_some(text)
    }

    /// The record of a run. `None` if there is none, or it cannot be read. What a hit shares with the run that made its
    /// artifacts is left out: see [`Runs::complete`].
    pub fn get(&self, id: &RunId) -> Option<RunRecord> {
        read::record(&self.path(id))
    }

    /// Fills in what hits share with the run that made their artifacts: figures, measurements, environment and log.
    pub fn complete(&self, record: &mut RunRecord) {
        record.stages.values_mut().for_each(|stage| self.complete_stage(stage));
    }

    /// The same for one stage. A stage that was no hit is left as it is.
    pub fn complete_stage(&self, stage: &mut StageRun) {
        let key = stage.key.filter(|_| stage.outcome == Outcome::Hit);
        if let Some(action) = key.and_then(|key| Records::new(&self.home).get(&key)) {
            stage.complete(action);
        }
    }

    /// The ids of all runs, the newest first.
    pub fn ids(&self) -> Vec<RunId> {
        let names = fs::read_dir(self.folder()).into_iter().flatten();
        let id =
            |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.strip_suffix(".jsonl")?.parse().ok();
        let mut ids: Vec<RunId> = names.filter_map(id).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    /// The runs of the pipeline of this name, the newest first, each read when the iterator comes to it.
    pub fn of(&self, pipeline: &str) -> impl Iterator<Item = RunRecord> {
        let (runs, pipeline) = (self.clone(), pipeline.to_owned());
        self.ids().into_iter().filter_map(move |id| read::record_of(&pipeline, &runs.path(&id)))
    }

    /// The newest run for which `wanted` holds. Reads no further than to that one.
    pub fn latest(&self, wanted: impl Fn(&RunRecord) -> bool) -> Option<RunRecord> {
        self.ids().iter().filter_map(|id| self.get(id)).find(wanted)
    }

    /// A run as one of two that are compared.
    pub fn side(&self, mut record: RunRecord) -> Side {
        let records = Records::new(&self.home);
        let mut identities = BTreeMap::new();
        for (name, stage) in &mut record.stages {
            let Some(action) = stage.key.and_then(|key| records.get(&key)) else { continue };
            identities.insert(name.clone(), action.identity.clone());
            stage.complete(action);
        }
        let pipeline = self.resolved(&record.resolved).and_then(|yaml| serde_yaml::from_str(&yaml).ok());
        Side { record, pipeline, identities }
    }

    /// What is known of a run since it began.
    pub(crate) fn header(&self, id: &RunId) -> Option<Header> {
        read::header(&self.path(id))
    }

    /// A run as a list shows it. `None` if there is none, or it cannot be read.
    pub fn summary(&self, id: &RunId) -> Option<RunSummary> {
        read::summary(&self.path(id))
    }

    /// Whether a stage of a run had this key.
    pub fn mentions(&self, id: &RunId, key: &Key) -> bool {
        fs::read(self.path(id)).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(&key.to_string()))
    }

    /// All runs as a list shows them, the newest first. Of each, only the first and the last line are read, when the
    /// iterator comes to it.
    pub fn summaries(&self) -> impl Iterator<Item = RunSummary> {
        let runs = self.clone();
        self.ids().into_iter().filter_map(move |id| runs.summary(&id))
    }

    /// Whether the process of a run lives.
    pub fn is_live(&self, id: &RunId) -> bool {
        journal::is_live(&self.path(id))
    }

    /// The journal of a run.
    pub fn path(&self, id: &RunId) -> PathBuf {
        self.folder().join(format!("{id}.jsonl"))
    }

    fn folder(&self) -> PathBuf {
        self.home.root().join("runs")
    }

    fn pipeline(&self, digest: &Digest) -> PathBuf {
        self.home.root().join("pipelines").join(format!("{digest}.yaml"))
    }
}

#[cfg(test)]
mod tests;
