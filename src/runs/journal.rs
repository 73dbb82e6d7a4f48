//! The journal of a run: `runs/ID.jsonl`, one JSON object a line, only ever appended to.
//!
//! ```text
//! {"event":"run_began", "id":..., "pipeline":..., "resolved":..., "machine":...}
//! {"event":"selected", "stages":{"tokens":"tokenize", ...}}
//! {"event":"stage_hit", "stage":..., "key":..., "outputs":...}
//! {"event":"stage_began", "stage":..., "key":..., "reasons":..., "log":...}
//! {"event":"attempt_failed", "stage":..., "error":...}     only if another attempt follows
//! {"event":"stage_ended", "stage":..., "outcome":..., "outputs":..., "figures":...}
//! {"event":"run_ended", "status":..., "counts":...}
//! ```
//! The process that writes it holds a lock on it as long as it lives: a journal without its last line belongs to a run
//! that goes on if the lock is taken, and to one that was killed if it is free. The lock is taken before the first byte
//! is written, so that nobody has a reason to ask for it earlier.

use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions, TryLockError},
    io::{self, Write},
    path::{Path, PathBuf},
};

use indexmap::IndexMap;
use pipe_stage::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Asked, Counts, Machine, Measure, Outcome, RunId, RunStatus};
use crate::cache::{CacheError, Environment, Key};

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(crate) enum Line {
    /// Always the first.
    RunBegan(Header),
    /// The stages of the run with their kinds, in the order of the work.
    Selected { stages: IndexMap<String, String> },
    /// A stage was up to date.
    StageHit { stage: String, key: Key, outputs: BTreeMap<String, Digest> },
    /// A worker is about to start.
    StageBegan(StageBegan),
    /// It failed, and another attempt will be made.
    AttemptFailed { stage: String, duration_seconds: f64, error: Vec<String> },
    /// A stage ran to its end.
    StageEnded(StageEnded),
    /// Always the last.
    RunEnded(RunEnded),
}

/// What is known of a run when it begins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Header {
    pub(crate) id: RunId,
    pub(crate) pipeline: String,
    pub(crate) file: PathBuf,
    pub(crate) started: jiff::Timestamp,
    pub(crate) version: String,
    pub(crate) set: Vec<String>,
    pub(crate) asked: Asked,
    pub(crate) resolved: Digest,
    pub(crate) machine: Machine,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageBegan {
    pub(crate) stage: String,
    pub(crate) at: jiff::Timestamp,
    pub(crate) key: Key,
    pub(crate) reasons: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) because: Vec<String>,
    pub(crate) log: PathBuf,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct StageEnded {
    pub(crate) stage: String,
    pub(crate) outcome: Outcome,
    pub(crate) duration_seconds: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) outputs: BTreeMap<String, Digest>,
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(crate) figures: IndexMap<String, Value>,
    #[serde(default, skip_serializing_if = "IndexMap::is_empty")]
    pub(crate) metrics: IndexMap<String, f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) environment: Option<Environment>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) error: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct RunEnded {
    pub(crate) status: RunStatus,
    pub(crate) at: jiff::Timestamp,
    pub(crate) duration_seconds: f64,
    pub(crate) counts: Counts,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) measure: Option<Measure>,
}

/// The journal of a run that goes on. Lines are kept back until [`Journal::write`]: a run in which nothing is to be
/// done writes once.
#[derive(Debug)]
pub(crate) struct Journal {
    path: PathBuf,
    /// Open, and locked, as long as the run lives.
    file: File,
    lines: Vec<u8>,
}

impl Journal {
    /// A journal at `path`, which must not exist.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if it does; else what the system says.
    pub(super) fn create(path: PathBuf) -> io::Result<Self> {
        let file = OpenOptions::new().append(true).create_new(true).open(&path)?;
        // Where the file system knows no locks, readers take the run for alive until it says that it ended.
        match file.try_lock() {
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => file.lock()?,
        }
        Ok(Self { path, file, lines: Vec::new() })
    }

    /// Adds a line.
    pub(crate) fn push(&mut self, line: &Line) {
        let before = self.lines.len();
        match serde_json::to_writer(&mut self.lines, line) {
            Ok(()) => self.lines.push(b'\n'),
            // Only a figure could be at fault, and a worker's figures came as JSON.
            Err(error) => {
                tracing::warn!(%error, "a line of the run's journal is left out");
                self.lines.truncate(before);
            }
        }
    }

    /// Writes what was added. From here on it is kept though this process is killed. What could not be written is tried
    /// again the next time, so that no line is torn.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn write(&mut self) -> Result<(), CacheError> {
        let mut written = 0;
        let mut result = Ok(());
        while written < self.lines.len() && result.is_ok() {
            match self.file.write(&self.lines[written..]) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => result = Err(error),
            }
        }
        self.lines.drain(..written);
        result.map_err(|error| failed(&self.path, error))
    }

    /// Makes what was written survive a power cut.
    ///
    /// # Errors
    /// If the disk refuses.
    pub(crate) fn sync(&self) -> Result<(), CacheError> {
        let folder = self.path.parent().unwrap_or(&self.path);
        let synced = self.file.sync_all().and_then(|()| File::open(folder)?.sync_all());
        synced.map_err(|source| failed(&self.path, source))
    }
}

fn failed(path: &Path, source: io::Error) -> CacheError {
    CacheError::Io { action: "write", path: path.to_owned(), source }
}

/// Whether the process that writes the journal lives. Asks only for what nobody but that process holds for long.
pub(super) fn is_live(path: &Path) -> bool {
    let Ok(file) = File::open(path) else { return false };
    match file.try_lock_shared() {
        Ok(()) => false,
        // Without locks there is no knowing.
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn what_a_full_disk_refused_is_written_when_there_is_room_again() {
        let temp = tempfile::tempdir().unwrap();
        let mut journal = Journal::create(temp.path().join("a.jsonl")).unwrap();
        let line = |stage: &str| Line::Selected { stages: [(stage.to_owned(), "fake".to_owned())].into() };
        let file = std::mem::replace(&mut journal.file, OpenOptions::new().write(true).open("/dev/full").unwrap());
        journal.push(&line("a"));
        assert!(journal.write().is_err());
        journal.push(&line("b"));
        assert!(journal.write().is_err());
        journal.file = file;
        journal.write().unwrap();
        journal.write().unwrap();
        let text = std::fs::read_to_string(&journal.path).unwrap();
        let lines: Vec<Line> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines, [line("a"), line("b")]);
    }
}
