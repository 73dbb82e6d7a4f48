//! Run records: what each execution of a pipeline did, kept also when it failed.

mod id;
mod record;

use std::{fs, io, path::PathBuf};

use crate::cache::{CacheError, Home};

pub use id::{InvalidRunId, RunId};
pub use record::{Outcome, RunRecord, RunStatus, StageRun};

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

    /// An id that no other run has, now or at the same time, and the folder for the logs of the run's stages.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn begin(&self) -> Result<RunId, CacheError> {
        let logs = self.home.root().join("logs");
        let failed = |path: PathBuf| move |source| CacheError::Io { action: "create the folder", path, source };
        fs::create_dir_all(&logs).map_err(failed(logs.clone()))?;
        loop {
            let id = RunId::generate();
            let folder = logs.join(id.as_str());
            match fs::create_dir(&folder) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                created => return created.map(|()| id).map_err(failed(folder)),
            }
        }
    }

    /// The log of a stage, relative to the home: `logs/RUN/STAGE.log`.
    pub fn log(id: &RunId, stage: &str) -> PathBuf {
        ["logs", id.as_str(), &format!("{stage}.log")].iter().collect()
    }

    /// Writes the record of a run, in place of what it said before.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn put(&self, record: &RunRecord) -> Result<(), CacheError> {
        let path = self.path(&record.id);
        let failed =
            |error: serde_json::Error| CacheError::Io { action: "write", path: path.clone(), source: error.into() };
        let bytes = serde_json::to_vec_pretty(record).map_err(failed)?;
        self.home.write(&path, &bytes)
    }

    /// The record of a run. `None` if there is none, or it cannot be read.
    pub fn get(&self, id: &RunId) -> Option<RunRecord> {
        let bytes = fs::read(self.path(id)).ok()?;
        serde_json::from_slice(&bytes)
            .inspect_err(|error| tracing::warn!(%id, %error, "a run record cannot be read"))
            .ok()
    }

    /// The ids of all runs with a record, the newest first.
    pub fn ids(&self) -> Vec<RunId> {
        let names = fs::read_dir(self.home.root().join("runs")).into_iter().flatten();
        let id =
            |entry: io::Result<fs::DirEntry>| entry.ok()?.file_name().to_str()?.strip_suffix(".json")?.parse().ok();
        let mut ids: Vec<RunId> = names.filter_map(id).collect();
        ids.sort_unstable_by(|a, b| b.cmp(a));
        ids
    }

    /// The newest run for which `wanted` holds.
    pub fn latest(&self, wanted: impl Fn(&RunRecord) -> bool) -> Option<RunRecord> {
        self.ids().iter().filter_map(|id| self.get(id)).find(wanted)
    }

    fn path(&self, id: &RunId) -> PathBuf {
        self.home.root().join("runs").join(format!("{id}.json"))
    }
}

#[cfg(test)]
mod tests;
