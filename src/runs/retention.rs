//! Which runs are kept when the cache is cleaned up, and what they need.

use std::{
    collections::HashMap,
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    time::Duration,
};

use rayon::prelude::*;
use serde::Serialize;

use super::{RunId, RunRecord, RunStatus, RunSummary, Runs, journal::Line};
use crate::cache::Needed;

/// Which runs may go. Without any rule, none may.
#[derive(Debug, Clone, Copy, Default)]
pub struct Retention {
    /// Of each pipeline, so many of the last runs stay.
    pub keep_last: Option<NonZeroUsize>,
    /// Runs stay until they began so long ago.
    pub older_than: Option<Duration>,
}

/// Why a run stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Stays {
    /// It goes on.
    Live,
    /// It is the last of its pipeline, or the last that made everything, and the pipeline's file is still there.
    LastOfPipeline,
    /// It is one of the last of its pipeline.
    AmongLast,
    /// It is not old enough.
    Recent,
    /// No rule lets any run go.
    NoRule,
}

/// A journal that cannot be read, so that nobody knows what its run needs.
#[derive(Debug, thiserror::Error)]
#[error("the record of the run {id} cannot be read (line {line} of {}), so what it needs is not known", path.display())]
pub struct Unclear {
    /// The run.
    pub id: RunId,
    /// Its journal.
    pub path: PathBuf,
    /// Counted from 1.
    pub line: usize,
}

/// The runs of a home, divided into those that stay and those that go.
#[derive(Debug, Default)]
pub struct Judged {
    /// Those that stay, the newest first, with the reason.
    pub stay: Vec<(RunSummary, Stays)>,
    /// Those that go, the newest first.
    pub go: Vec<RunId>,
}

impl Retention {
    /// Whether there is a rule that may let runs go.
    pub fn lets_go(&self) -> bool {
        self.keep_last.is_some() || self.older_than.is_some()
    }

    /// Divides the runs of a home.
    ///
    /// # Errors
    /// If the beginning of a journal cannot be read though there is one.
    pub fn judge(&self, runs: &Runs, now: jiff::Timestamp) -> Result<Judged, Unclear> {
        let (mut known, mut judged) = (Vec::new(), Judged::default());
        for id in runs.ids() {
            match runs.summary(&id) {
                Some(summary) => known.push((runs.is_live(&id), summary)),
                // It was killed before it had written its first line, or has not written it yet.
                None if fs::read(runs.path(&id)).is_ok_and(|bytes| !bytes.contains(&b'\n')) => {
                    if !runs.is_live(&id) {
                        judged.go.push(id);
                    }
                }
                None => return Err(Unclear { path: runs.path(&id), id, line: 1 }),
            }
        }
        let reasons = self.reasons(&known, now, Path::exists);
        for ((_, summary), reason) in known.into_iter().zip(reasons) {
            match reason {
                Some(reason) => judged.stay.push((summary, reason)),
                None => judged.go.push(summary.id),
            }
        }
        Ok(judged)
    }

    /// Why each of the runs, the newest first, stays; `None` if it goes. Each comes with whether it goes on.
    fn reasons<'runs>(
        &self,
        runs: &'runs [(bool, RunSummary)],
        now: jiff::Timestamp,
        exists: impl Fn(&Path) -> bool,
    ) -> Vec<Option<Stays>> {
        // Of each pipeline, how many runs were seen, and whether one of them made everything.
        let mut seen: HashMap<(&str, &Path), (usize, bool)> = HashMap::new();
        let reason = |(live, run): &'runs (bool, RunSummary)| {
            let (newer, newer_done) = seen.entry((&run.pipeline, &run.file)).or_default();
            let is_done = run.status == RunStatus::Done;
            let is_last = *newer == 0 || (is_done && !*newer_done);
            let is_among_last = self.keep_last.is_some_and(|last| *newer < last.get());
            *newer += 1;
            *newer_done |= is_done;
            // A run that begins in the future, by a clock that was set back, is not old.
            let age = Duration::try_from(now.duration_since(run.started)).unwrap_or_default();
            match () {
                () if *live => Some(Stays::Live),
                () if is_last && exists(&run.file) => Some(Stays::LastOfPipeline),
                () if is_among_last => Some(Stays::AmongLast),
                () if self.older_than.is_some_and(|oldest| age < oldest) => Some(Stays::Recent),
                () if !self.lets_go() => Some(Stays::NoRule),
                () => None,
            }
        };
        runs.iter().map(reason).collect()
    }
}

impl Judged {
    /// What the runs that stay need.
    ///
    /// # Errors
    /// If a journal of theirs cannot be read to the end.
    pub fn needed(&self, runs: &Runs) -> Result<Needed, Unclear> {
        let read = |(summary, _): &(RunSummary, Stays)| strict(runs, &summary.id);
        let records: Vec<RunRecord> = self.stay.par_iter().map(read).collect::<Result<_, _>>()?;
        let mut needed = Needed::default();
        for run in records {
            needed.runs.insert(run.id.to_string());
            needed.pipelines.insert(run.pipeline);
            needed.resolved.insert(run.resolved);
            for stage in run.stages.into_values() {
                needed.artifacts.extend(stage.outputs.into_values());
                needed.keys.extend(stage.key);
            }
        }
        Ok(needed)
    }
}

/// The record of a run, every line of which could be read but for the cut end of a killed one.
fn strict(runs: &Runs, id: &RunId) -> Result<RunRecord, Unclear> {
    let path = runs.path(id);
    let unclear = |line: usize| Unclear { id: id.clone(), path: path.clone(), line };
    let bytes = fs::read(&path).map_err(|_| unclear(1))?;
    let whole = bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n"));
    for (index, line) in whole.enumerate() {
        serde_json::from_slice::<Line>(line).map_err(|_| unclear(index + 1))?;
    }
    RunRecord::from_journal(&bytes).ok_or_else(|| unclear(1))
}

#[cfg(test)]
mod tests;
