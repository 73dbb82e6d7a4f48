//! One stage from the start of its worker to its record in the cache.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitStatus,
    time::{Duration, Instant},
};

use rustix::process::Signal;

use super::{
    ending::{self, Ending},
    heard::{Heard, NOISE_SHOWN},
    keeper::Unkept,
    preparation::Ready,
    process::{Launch, Said, Worker},
    slots::Grant,
};
use crate::{
    cache::{ActionRecord, Attempt, Environment, Identity, Store, crash},
    config::StageSpec,
};

/// A stage that was stopped because its time was up has this long to save what it has, or as long as its timeout is if
/// that is shorter.
const GRACE: Duration = Duration::from_secs(60);

/// A stage whose worker runs.
pub(super) struct Active {
    pub(super) worker: Worker,
    pub(super) grant: Grant,
    attempt: Attempt,
    identity: Identity,
    log: PathBuf,
    started: jiff::Timestamp,
    clock: Instant,
    /// When it is stopped, and how.
    deadline: Option<(Instant, Signal)>,
    heard: Heard,
    stopped: bool,
    /// Its timeout, once that has passed.
    overdue: Option<Duration>,
}

/// A stage whose worker is gone.
pub(super) struct Ended {
    attempt: Attempt,
    identity: Identity,
    log: PathBuf,
    started: jiff::Timestamp,
    ended: jiff::Timestamp,
    /// In between, by a clock that nobody sets.
    seconds: f64,
    heard: Heard,
    /// What the stage was given to run on.
    device: String,
    status: ExitStatus,
    stopped: bool,
    overdue: Option<Duration>,
}

impl Active {
    /// Starts the worker. `log` is relative to the home.
    pub(super) fn launch(
        ready: Ready,
        spec: &StageSpec,
        grant: Grant,
        log: PathBuf,
    ) -> Result<Self, Box<(Grant, Ending)>> {
        let Ready { identity, program, attempt, job, .. } = ready;
        let (started, clock) = (jiff::Timestamp::now(), Instant::now());
        let launched = Worker::spawn(Launch {
            program: &program,
            stage: spec.name.as_str(),
            variables: &spec.environment,
            surroundings: spec.declaration.surroundings,
            job,
            attempt: &attempt,
            grant: &grant,
        });
        let worker = match launched {
            Ok(worker) => worker,
            Err(error) => return Err(Box::new((grant, Ending::environment(&error, None)))),
        };
        crash::point("scheduler.spawned");
        let deadline = spec.timeout.and_then(|timeout| clock.checked_add(timeout)).map(|time| (time, Signal::TERM));
        let heard = Heard::default();
        let overdue = None;
        Ok(Self { worker, grant, attempt, identity, log, started, clock, deadline, heard, stopped: false, overdue })
    }

    /// Reads what the worker has said since, as far as it fits into `piece`.
    pub(super) fn listen(&mut self, piece: &mut [u8], mut each: impl FnMut(&mut Heard, Said<'_>)) {
        let heard = &mut self.heard;
        self.worker.listen(piece, |said| each(heard, said));
    }

    /// Asks the worker to stop, or makes it.
    pub(super) fn stop(&mut self, signal: Signal) {
        self.stopped = true;
        self.worker.signal(signal);
    }

    /// When [`Active::mind_the_time`] will have something to do.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline.map(|(time, _)| time)
    }

    /// Stops it if its time is up: first asks, then makes it. Gives its timeout when that passes.
    pub(super) fn mind_the_time(&mut self, now: Instant, timeout: Option<Duration>) -> Option<Duration> {
        let (_, signal) = self.deadline.take_if(|(time, _)| *time <= now)?;
        self.worker.signal(signal);
        if signal == Signal::KILL {
            return None;
        }
        self.overdue = timeout;
        self.deadline = Some((now + timeout.unwrap_or(GRACE).min(GRACE), Signal::KILL));
        timeout
    }

    /// The worker has ended: what it left behind is ended, and its last words are heard.
    pub(super) fn reap(self, piece: &mut [u8], mut each: impl FnMut(&mut Heard, Said<'_>)) -> (Ended, Grant) {
        let Self { worker, grant, attempt, identity, log, started, clock, mut heard, stopped, overdue, .. } = self;
        let status = worker.reap(piece, |said| each(&mut heard, said));
        crash::point("scheduler.worker-ended");
        let (ended, seconds) = (jiff::Timestamp::now(), clock.elapsed().as_secs_f64());
        let device = grant.device().to_owned();
        (Ended { attempt, identity, log, started, ended, seconds, heard, device, status, stopped, overdue }, grant)
    }
}

impl Ended {
    /// How long its worker took.
    pub(super) fn seconds(&self) -> f64 {
        self.seconds
    }

    /// How many lines it wrote that were no events, where that was not told line by line.
    pub(super) fn noise(&self) -> Option<usize> {
        Some(self.heard.noise).filter(|noise| *noise > NOISE_SHOWN)
    }

    /// Relative to the home.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has made something, and why not.
    pub(super) fn judge(&self) -> Result<(), Ending> {
        let stopped = self.stopped || self.overdue.is_some();
        ending::judge(self.heard.last_word.clone(), self.status, stopped).map_err(|ending| match self.overdue {
            Some(timeout) if !self.stopped => ending.overdue(timeout),
            _ => ending,
        })
    }

    /// What it made, ready to be kept, or the reason why there is nothing to keep. May take long.
    pub(super) fn conclude(self, spec: &StageSpec, store: &Store) -> Result<Unkept, Ending> {
        self.judge()?;
        // A kind may know better.
        let said = self.heard.figures.get("device").and_then(|device| device.as_str()).map(str::to_owned);
        let device = Some(said.unwrap_or(self.device));
        let record = ActionRecord {
            key: *self.attempt.lock().key(),
            stage: spec.name.to_string(),
            identity: self.identity,
            outputs: BTreeMap::new(),
            figures: self.heard.figures,
            metrics: self.heard.metrics,
            environment: Environment {
                device,
                threads: spec.resources.cpus,
                versions: BTreeMap::from([("pipe".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            },
            started: self.started,
            ended: self.ended,
            duration_seconds: self.seconds,
            log: self.log,
        };
        Unkept::new(&spec.outputs, record, self.attempt, store).map_err(Ending::of_cache)
    }
}
