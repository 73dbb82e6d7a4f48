//! What becomes of stages, and of the run: kept, up to date, tried again, failed.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use pipe_stage::{Digest, FailureClass, Level};

use super::{Crew, Engine, Message, copies::Came};
use crate::{
    cache::{ActionRecord, Key, crash},
    report::{self, Event, Outcome, Skipped, StageFailure, Summary},
    runs::Counts,
    scheduler::{
        RunError,
        active::Ended,
        ending::Ending,
        keeper::{self, Leavings, Unkept},
        strays,
    },
};

/// The time before a failed stage is tried again: the first, doubled each time, and the longest.
const RETRY_DELAY: Duration = Duration::from_millis(250);
const LONGEST_RETRY_DELAY: Duration = Duration::from_secs(30);

/// A failed stage shows this many of the last lines of its log.
const TAIL_LINES: usize = 20;

/// A stage whose worker has ended.
pub(super) struct Concluding {
    /// How long its worker took.
    seconds: f64,
    /// Relative to the home.
    log: PathBuf,
}

/// What came of it on a thread of the crew.
pub(in crate::scheduler) struct Conclusion {
    result: Result<Unkept, Ending>,
    /// How many processes its worker had left behind.
    left: usize,
}

impl<'run> Engine<'run> {
    /// The worker of a stage has ended. That it failed is known at once, so that nothing begins after it.
    pub(super) fn ended<'scope>(
        &mut self,
        index: usize,
        ended: Ended,
        crew: &mut Crew<'scope, '_>,
    ) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        if let Err(ending) = ended.judge()
            && !self.has_retries(index, &ending)
        {
            self.doomed.insert(index);
        }
        self.concluding.insert(index, Concluding { seconds: ended.seconds(), log: ended.log().to_owned() });
        let (shared, spec) = (self.shared, self.stages[index].spec);
        crew.give(move || {
            // First, so that nobody writes any more.
            let left = strays::end_all();
            let result = ended.conclude(spec, &shared.store);
            Message::Concluded(index, Box::new(Conclusion { result, left }))
        })?;
        Ok(())
    }

    /// The crew is done with a stage.
    pub(super) fn concluded(&mut self, index: usize, conclusion: Conclusion) {
        let Conclusion { result, left } = conclusion;
        if left > 0 {
            let processes = if left == 1 { "process" } else { "processes" };
            let message = format!("its worker left {left} {processes} behind: killed");
            self.report.event(&Event::StageLog { stage: self.name(index), level: Level::Warn, message });
        }
        match result {
            Ok(unkept) => self.unkept.push((index, unkept)),
            Err(ending) => self.kept(index, Err(ending)),
        }
    }

    /// Has the stages kept that have come together while the last group was.
    pub(super) fn keep_what_is_ready<'scope>(&mut self, crew: &mut Crew<'scope, '_>) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        if self.keeping || self.unkept.is_empty() {
            return Ok(());
        }
        self.keeping = true;
        let group: Vec<(usize, Unkept)> = self.unkept.drain(..self.unkept.len().min(keeper::GROUP)).collect();
        let home = self.shared.home;
        crew.give(move || {
            let (indices, group): (Vec<usize>, Vec<Unkept>) = group.into_iter().unzip();
            let kept = indices.into_iter().zip(keeper::keep(home, group));
            Message::Kept(kept.map(|(index, (kept, leavings))| (index, kept, leavings)).collect())
        })?;
        Ok(())
    }

    /// A group of stages is kept. What they leave is cleaned up beside what comes next.
    pub(super) fn group_kept<'scope>(
        &mut self,
        group: Vec<(usize, Result<ActionRecord, Ending>, Leavings)>,
        crew: &mut Crew<'scope, '_>,
    ) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        self.keeping = false;
        for (index, kept, leavings) in group {
            self.kept(index, kept);
            crew.give(move || {
                leavings.clean_up();
                Message::CleanedUp
            })?;
        }
        Ok(())
    }

    /// What a stage made is in the cache, or could not be put there.
    pub(super) fn kept(&mut self, index: usize, kept: Result<ActionRecord, Ending>) {
        let Some(Concluding { seconds, log }) = self.concluding.remove(&index) else { return };
        match kept {
            Ok(record) => {
                self.lookup.note(&self.stages[index].spec.name, &record.key, &record.outputs);
                let outputs = record.outputs.clone();
                self.come(index, Came::Ran { record: Box::new(record), seconds, log }, outputs);
            }
            Err(ending) => {
                self.doomed.remove(&index);
                if self.has_retries(index, &ending) && self.may_begin() {
                    self.retry(index, ending, &log, seconds);
                } else {
                    self.failed(index, ending, Some(&log), seconds);
                }
            }
        }
    }

    /// The artifacts of a stage are there already.
    pub(super) fn hit(&mut self, index: usize, key: &Key, outputs: BTreeMap<String, Digest>, known: bool) {
        if !known {
            self.lookup.note(&self.stages[index].spec.name, key, &outputs);
        }
        self.come(index, Came::Found { key: *key }, outputs);
    }

    pub(super) fn up_to_date(&mut self, index: usize, outputs: BTreeMap<String, Digest>) {
        self.stages.get_mut(index).to_retry = None;
        self.undecided.extend(self.stages.up_to_date(index, outputs));
    }

    fn has_retries(&self, index: usize, ending: &Ending) -> bool {
        let stage = &self.stages[index];
        stage.attempts <= stage.spec.retries && ending.class != FailureClass::Cancelled
    }

    /// Lets the stage be decided on once more, a little later, so that what made it fail may pass.
    fn retry(&mut self, index: usize, ending: Ending, log: &Path, seconds: f64) {
        let failure = self.failure(ending, Some(log));
        let (attempt, retries) = (self.stages[index].attempts, self.stages[index].spec.retries);
        let delay = RETRY_DELAY.saturating_mul(1 << (attempt - 1).min(16)).min(LONGEST_RETRY_DELAY);
        self.books.attempt_failed(&self.stages[index].spec.name, &failure, seconds);
        self.report.event(&Event::StageRetrying {
            stage: self.name(index),
            attempt,
            retries,
            failure: failure.clone(),
            seconds,
            delay_seconds: delay.as_secs_f64(),
        });
        self.stages.get_mut(index).to_retry = Some((failure, seconds));
        self.later.push(Reverse((Instant::now() + delay, index)));
    }

    /// A stage made nothing, and will not in this run. `log`: relative to the home.
    pub(super) fn failed(&mut self, index: usize, ending: Ending, log: Option<&Path>, seconds: f64) {
        let failure = self.failure(ending, log);
        self.failed_of(index, failure, seconds);
    }

    fn failed_of(&mut self, index: usize, failure: StageFailure, seconds: f64) {
        let spec = self.stages[index].spec;
        self.failed.push((index, failure.class));
        // What its last attempt said has been told, and this is the end of it.
        self.stages.get_mut(index).to_retry = None;
        self.books.failed(&spec.name, &failure, seconds);
        let kind = spec.declaration.kind.to_owned();
        self.report.event(&Event::StageFailed { stage: self.name(index), kind, failure, seconds });
        if self.options.keep_going {
            for skipped in self.stages.skip_after(index) {
                let skipped = Skipped { stage: self.name(skipped), because: self.name(index) };
                self.report.event(&Event::StageSkipped(skipped.clone()));
                self.skipped.push(skipped);
            }
        }
    }

    /// `log`: relative to the home, if the stage came so far as to have one.
    pub(super) fn failure(&self, ending: Ending, log: Option<&Path>) -> StageFailure {
        let Ending { class, chain, hint } = ending;
        let log = log.map(|log| self.shared.home.root().join(log));
        let tail = log.as_deref().map(|log| report::tail(log, TAIL_LINES)).unwrap_or_default();
        StageFailure { class, chain, hint, log, tail }
    }

    /// Stages that would have been tried again failed, or were stopped, with what their last attempt said.
    pub(super) fn give_up_retries(&mut self) {
        for index in 0..self.stages.len() {
            let Some((mut failure, seconds)) = self.stages.get_mut(index).to_retry.take() else { continue };
            if self.stop.is_some() {
                failure.class = FailureClass::Cancelled;
                failure.chain.insert(0, "stopped on request before it was tried again".to_owned());
            }
            self.failed_of(index, failure, seconds);
        }
    }

    /// Notes how the artifacts of the stages that ran look. When they were kept, most were too new for that.
    fn note_what_ran(&mut self) {
        let Self { stages, lookup, shared, .. } = self;
        for stage in stages.iter() {
            if let (Some(key), Some(outputs)) = (&stage.key, &stage.outputs) {
                lookup.state_mut().note(&shared.store, stage.spec.name.as_str(), key, outputs);
            }
        }
    }

    /// Closes the books.
    pub(super) fn finish(mut self) -> Result<Summary, RunError> {
        let unfinished = self.stages.iter().filter(|stage| stage.outputs.is_none()).count();
        // The same failures give the same exit code, whichever came first this time.
        self.failed.sort_by_key(|(index, _)| *index);
        let failed = |class: &FailureClass| *class != FailureClass::Cancelled;
        let outcome = match self.failed.iter().map(|(_, class)| *class).find(failed) {
            None if unfinished == 0 => Outcome::Done,
            None | Some(FailureClass::Cancelled) => Outcome::Cancelled,
            Some(FailureClass::Stage) => Outcome::StageFailed,
            Some(FailureClass::Environment) => Outcome::EnvironmentLacks,
        };
        let failed =
            self.failed.iter().filter(|(_, class)| failed(class)).map(|(index, _)| self.name(*index)).collect();
        self.note_what_ran();
        let (run, mut report) = (self.books.run(), self.report);
        let Counts { ran, hits, .. } = self.books.counts();
        crash::point("scheduler.before-end");
        self.lookup.state_mut().save(|stage| self.shared.pipeline.stages.contains_key(stage));
        let seconds = self.books.close(outcome)?;
        let go_on = (outcome != Outcome::Done).then(|| self.options.again.clone());
        let skipped = self.skipped;
        let summary = Summary { run, outcome, ran, hits, unfinished, failed, skipped, seconds, go_on };
        report.event(&Event::RunFinished(summary.clone()));
        Ok(summary)
    }
}
