//! The event loop: which stage may begin, what a message means, when the run is over.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap},
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender},
    time::{Duration, Instant},
};

use pipe_stage::{Digest, Event as Word, FailureClass, Level};
use rustix::process::Signal;

use super::{
    Message, Options, Programs, RunError,
    active::{Active, Cache, Order},
    books::Books,
    ending::Ending,
    keeper::Keeper,
    process::Said,
    signals::SignalWatch,
};
use crate::{
    cache::{self, Acquired, ActionRecord, Home, Identity, Key, KeyLock, UserFiles, crash},
    config::{InputRef, Pipeline, StageName, StageSpec},
    graph::Graph,
    plan::{self, Action, Decision, Externals, Reason},
    report::{self, Event, Outcome, Sink, StageFailure, StageLogs, Summary},
    runs::Counts,
};

/// As many messages may wait for the loop; then workers wait with what they have to say.
const MESSAGES: usize = 4096;

/// How long a stopped worker has to save what it has.
const GRACE: Duration = Duration::from_secs(60);

/// How often a lock that another process holds is asked for again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// A failed stage shows this many of the last lines of its log.
const TAIL_LINES: usize = 20;

/// More lines that are no events are only counted.
const NOISE_SHOWN: usize = 10;

/// Of a line that is no event, this much is shown, in characters.
const NOISE_LENGTH: usize = 400;

/// A run.
pub(super) struct Engine<'run> {
    pipeline: &'run Pipeline,
    options: &'run Options,
    cache: Cache<'run>,
    externals: Externals,
    programs: Programs,
    report: Report<'run>,
    books: Books,
    /// The stages to bring up to date, each after those that it takes from; their indices name them from here on.
    stages: Vec<Stage<'run>>,
    index: HashMap<&'run StageName, usize>,
    /// All that they take from is there.
    ready: BTreeSet<usize>,
    /// Another process is at work on their key.
    waiting: BTreeMap<usize, Key>,
    running: BTreeMap<usize, Active>,
    /// Their workers have ended well, and what they made is being kept.
    keeping: BTreeMap<usize, Keeping>,
    keeper: Keeper,
    messages: Receiver<Message>,
    sender: SyncSender<Message>,
    stop: Option<Stop>,
    failed: Option<FailureClass>,
}

struct Stage<'run> {
    spec: &'run StageSpec,
    /// Indices of the stages that take from it.
    takers: Vec<usize>,
    /// How many of the stages that it takes from are not up to date yet.
    blocked_by: usize,
    /// Its artifacts, once they are there.
    outputs: Option<BTreeMap<String, Digest>>,
}

/// A stage whose outputs are being kept.
struct Keeping {
    clock: Instant,
    log: PathBuf,
}

/// Someone asked the run to stop.
struct Stop {
    deadline: Instant,
    killed: bool,
}

/// Where events go: to whoever asked for the run, and into the logs of the stages.
struct Report<'run> {
    sink: &'run mut dyn Sink,
    logs: StageLogs,
}

impl Report<'_> {
    fn event(&mut self, event: &Event) {
        self.logs.event(event);
        self.sink.event(event);
    }
}

impl<'run> Engine<'run> {
    pub(super) fn new(
        pipeline: &'run Pipeline,
        home: &'run Home,
        options: &'run Options,
        sink: &'run mut dyn Sink,
    ) -> Result<Self, RunError> {
        let clock = Instant::now();
        let graph = Graph::new(pipeline)?;
        let targets: Vec<&StageName> = if options.targets.is_empty() {
            pipeline.stages.keys().collect()
        } else {
            options.targets.iter().collect()
        };
        let selected = graph.needed_for(targets);
        home.create()?;
        if let Err(error) = cache::sweep(home) {
            tracing::warn!(error = &error as &dyn std::error::Error, "scratch of earlier runs is left");
        }
        let externals = Externals::identify(pipeline, &selected, &UserFiles::new(home), |name| std::env::var_os(name))?;
        let stages: Vec<&StageSpec> = selected.iter().filter_map(|name| pipeline.stages.get(name)).collect();
        let index: HashMap<&StageName, usize> = stages.iter().map(|spec| &spec.name).zip(0..).collect();
        let stages: Vec<Stage<'_>> = stages
            .into_iter()
            .map(|spec| Stage {
                spec,
                takers: graph.takers(&spec.name).iter().filter_map(|name| index.get(*name).copied()).collect(),
                blocked_by: graph.makers(&spec.name).len(),
                outputs: None,
            })
            .collect();
        let mut cache = Cache::new(home, pipeline);
        let written = pipeline.source.digest();
        let resolved = cache.lookup.state().resolved(&written);
        let specs = stages.iter().map(|stage| stage.spec);
        let books = Books::open(pipeline, home, specs, &options.targets, resolved, clock)?;
        cache.lookup.state_mut().note_resolved(written, books.resolved());
        let (sender, messages) = mpsc::sync_channel(MESSAGES);
        Ok(Self {
            pipeline,
            options,
            cache,
            externals,
            programs: Programs::locate()?,
            report: Report { sink, logs: StageLogs::default() },
            books,
            ready: (0..stages.len()).filter(|&index| stages[index].blocked_by == 0).collect(),
            stages,
            index,
            waiting: BTreeMap::new(),
            running: BTreeMap::new(),
            keeping: BTreeMap::new(),
            keeper: Keeper::new(home, sender.clone()),
            messages,
            sender,
            stop: None,
            failed: None,
        })
    }

    pub(super) fn run(mut self) -> Result<Summary, RunError> {
        let _span = tracing::info_span!("run", id = self.books.run()).entered();
        let signals = SignalWatch::start(self.sender.clone())?;
        self.report.event(&Event::RunStarted {
            run: self.books.run(),
            pipeline: self.pipeline.name.clone(),
            stages: self.stages.iter().map(|stage| stage.spec.name.to_string()).collect(),
        });
        self.drive(&signals);
        self.finish()
    }

    /// The loop. Ends when nothing runs and nothing can begin.
    fn drive(&mut self, signals: &SignalWatch) {
        let mut heeded = 0;
        loop {
            while heeded < signals.count() {
                heeded += 1;
                self.asked_to_stop();
            }
            self.begin_what_can();
            let waits = self.may_begin() && !self.waiting.is_empty();
            if !waits && self.running.is_empty() && self.keeping.is_empty() {
                return;
            }
            match self.messages.recv_timeout(if waits { LOCK_INTERVAL } else { GRACE }) {
                Ok(Message::Worker(stage, said)) => self.heard(stage, said),
                Ok(Message::Kept(stage, kept)) => self.kept(stage, kept),
                Ok(Message::Signal) => {}
                // The engine has a sender itself, so the channel cannot be closed.
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {}
            }
            if self.stop.as_ref().is_some_and(|stop| !stop.killed && Instant::now() >= stop.deadline) {
                self.kill();
            }
        }
    }

    fn begin_what_can(&mut self) {
        // A stage that waits for another process holds no slot, and others need not wait for it.
        for (index, key) in self.waiting.clone() {
            if self.has_slot(index) {
                self.begin_locked(index, &key);
            }
        }
        while let Some(index) = self.ready.iter().copied().find(|&index| self.has_slot(index)) {
            self.ready.remove(&index);
            self.begin(index);
        }
    }

    fn may_begin(&self) -> bool {
        self.stop.is_none() && self.failed.is_none()
    }

    fn has_slot(&self, index: usize) -> bool {
        let uses_gpu = |index: usize| self.stages[index].spec.resources.gpus > 0;
        self.may_begin()
            && self.running.len() < self.options.jobs.get()
            && !(uses_gpu(index) && self.running.keys().any(|&index| uses_gpu(index)))
    }

    /// Takes what is in the cache, or else begins to make it.
    fn begin(&mut self, index: usize) {
        match self.decide(index) {
            Decision { key, action: Action::Hit { outputs }, known, .. } => self.hit(index, &key, outputs, known),
            Decision { key, .. } => self.begin_locked(index, &key),
        }
    }

    /// Runs the stage, unless another process is at work on its key or has just done the work.
    fn begin_locked(&mut self, index: usize, key: &Key) {
        let lock = match KeyLock::acquire(self.cache.home, key) {
            Ok(Acquired::Held(lock)) => lock,
            Ok(Acquired::Busy(holder)) => {
                if self.waiting.insert(index, *key).is_none() {
                    let holder = holder.map(|holder| format!("process {} on {}", holder.pid, holder.host));
                    self.report.event(&Event::StageWaiting { stage: self.name(index), holder });
                }
                return;
            }
            Err(error) => return self.failed(index, Ending::environment(&error, None), None, 0.0),
        };
        crash::point("scheduler.locked");
        self.waiting.remove(&index);
        // Whoever had the lock before may just have made what is needed.
        let decision = self.decide(index);
        match decision.action {
            Action::Hit { outputs } => self.hit(index, &decision.key, outputs, decision.known),
            Action::Run { reasons } | Action::Maybe { reasons } => {
                self.launch(index, decision.identity, &reasons, lock)
            }
        }
    }

    fn launch(&mut self, index: usize, identity: Identity, reasons: &[Reason], lock: KeyLock) {
        let spec = self.stages[index].spec;
        if let Err(error) = self.books.began(&spec.name, lock.key(), reasons) {
            return self.failed(index, Ending::environment(&error, None), None, 0.0);
        }
        let log = self.books.log(&spec.name);
        self.report.event(&Event::StageStarted {
            stage: self.name(index),
            kind: spec.declaration.kind.to_owned(),
            reasons: reasons.iter().map(Reason::to_string).collect(),
            log: self.cache.home.root().join(&log),
        });
        let order = Order { spec, pipeline: self.pipeline, identity, log: log.clone() };
        tracing::debug!(stage = spec.name.as_str(), key = %lock.key(), "a stage begins");
        match Active::launch(order, lock, &self.cache, &self.programs, &self.sender, index) {
            Ok(active) => drop(self.running.insert(index, active)),
            Err(ending) => self.failed(index, ending, Some(&log), 0.0),
        }
    }

    fn decide(&self, index: usize) -> Decision {
        let spec = self.stages[index].spec;
        let made = |input: &InputRef| {
            let maker = &self.stages[*self.index.get(&input.stage)?];
            maker.outputs.as_ref()?.get(&input.output).copied()
        };
        let inputs = spec.inputs.iter().map(|(port, taken)| (port.clone(), taken.iter().filter_map(made).collect()));
        plan::decide(spec, inputs.collect(), self.externals.of(&spec.name), &self.cache.lookup)
    }

    fn heard(&mut self, index: usize, said: Said) {
        let stage = self.name(index);
        let Some(active) = self.running.get_mut(&index) else { return };
        match said {
            Said::Event(word) => {
                active.heard(&word);
                if let Some(event) = told(stage, word) {
                    self.report.event(&event);
                }
            }
            Said::Noise(line) => {
                active.noise += 1;
                match active.noise.cmp(&NOISE_SHOWN) {
                    Ordering::Less => self.report.event(&noise(stage, &line)),
                    Ordering::Equal => {
                        let message = "its worker goes on writing lines that are no events".to_owned();
                        self.report.event(&Event::StageLog { stage, level: Level::Warn, message });
                    }
                    Ordering::Greater => {}
                }
            }
            Said::Ended(status) => self.ended(index, status),
        }
    }

    fn ended(&mut self, index: usize, status: ExitStatus) {
        let Some(active) = self.running.remove(&index) else { return };
        let (clock, log) = (active.clock(), active.log().to_owned());
        match active.conclude(self.stages[index].spec, status) {
            Ok(finished) => {
                self.keeping.insert(index, Keeping { clock, log });
                self.keeper.take(index, finished);
            }
            Err(ending) => self.failed(index, ending, Some(&log), clock.elapsed().as_secs_f64()),
        }
    }

    fn kept(&mut self, index: usize, kept: Result<Box<ActionRecord>, Ending>) {
        let Some(Keeping { clock, log }) = self.keeping.remove(&index) else { return };
        let seconds = clock.elapsed().as_secs_f64();
        match kept {
            Ok(record) => {
                let outputs = record.outputs.clone();
                self.books.ran(&self.stages[index].spec.name, &record);
                self.report.event(&Event::StageFinished { stage: self.name(index), seconds, outputs: outputs.clone() });
                self.cache.lookup.note(&self.stages[index].spec.name, &record.key, &outputs);
                self.up_to_date(index, outputs);
            }
            Err(ending) => self.failed(index, ending, Some(&log), seconds),
        }
    }

    fn hit(&mut self, index: usize, key: &Key, outputs: BTreeMap<String, Digest>, known: bool) {
        if !known {
            self.cache.lookup.note(&self.stages[index].spec.name, key, &outputs);
        }
        self.books.hit(&self.stages[index].spec.name, key, &outputs);
        self.report.event(&Event::StageHit { stage: self.name(index) });
        self.up_to_date(index, outputs);
    }

    fn up_to_date(&mut self, index: usize, outputs: BTreeMap<String, Digest>) {
        self.stages[index].outputs = Some(outputs);
        for taker in self.stages[index].takers.clone() {
            self.stages[taker].blocked_by -= 1;
            if self.stages[taker].blocked_by == 0 {
                self.ready.insert(taker);
            }
        }
    }

    fn failed(&mut self, index: usize, ending: Ending, log: Option<&Path>, seconds: f64) {
        let Ending { class, chain, hint } = ending;
        self.failed = self.failed.or(Some(class));
        let log = log.map(|log| self.cache.home.root().join(log));
        let tail = log.as_deref().map(|log| report::tail(log, TAIL_LINES)).unwrap_or_default();
        let failure = StageFailure { class, chain, hint, log, tail };
        self.books.failed(&self.stages[index].spec.name, &failure, seconds);
        let kind = self.stages[index].spec.declaration.kind.to_owned();
        self.report.event(&Event::StageFailed { stage: self.name(index), kind, failure, seconds });
    }

    fn asked_to_stop(&mut self) {
        if self.stop.is_some() {
            return self.kill();
        }
        self.stop = Some(Stop { deadline: Instant::now() + GRACE, killed: false });
        self.report.event(&Event::RunStopping { grace_seconds: GRACE.as_secs() });
        self.running.values_mut().for_each(|active| active.stop(Signal::TERM));
    }

    fn kill(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.killed = true;
        }
        self.running.values_mut().for_each(|active| active.stop(Signal::KILL));
    }

    fn finish(mut self) -> Result<Summary, RunError> {
        let unfinished = self.stages.iter().filter(|stage| stage.outputs.is_none()).count();
        let outcome = match self.failed {
            None if unfinished == 0 => Outcome::Done,
            None | Some(FailureClass::Cancelled) => Outcome::Cancelled,
            Some(FailureClass::Stage) => Outcome::StageFailed,
            Some(FailureClass::Environment) => Outcome::EnvironmentLacks,
        };
        let (run, mut report) = (self.books.run(), self.report);
        let Counts { ran, hits, .. } = self.books.counts();
        crash::point("scheduler.before-end");
        self.cache.lookup.state_mut().save(|stage| self.pipeline.stages.contains_key(stage));
        let seconds = self.books.close(outcome)?;
        let go_on = (outcome != Outcome::Done).then(|| self.options.again.clone());
        let summary = Summary { run, outcome, ran, hits, unfinished, seconds, go_on };
        report.event(&Event::RunFinished(summary.clone()));
        Ok(summary)
    }

    fn name(&self, index: usize) -> String {
        self.stages[index].spec.name.to_string()
    }
}

/// What the outside world hears of a worker's word.
pub(super) fn told(stage: String, word: Word) -> Option<Event> {
    Some(match word {
        Word::Progress { unit, done, total } => Event::StageProgress { stage, unit, done, total },
        Word::Metric { step, values } => Event::StageMetric { stage, step, values },
        Word::Figure { name, value } => Event::StageFigure { stage, name, value },
        Word::Log { level, message } => Event::StageLog { stage, level, message },
        // Not before the worker is gone and its artifacts are kept.
        Word::Result(_) => return None,
    })
}

/// A line of a worker that is no event, or the beginning of it.
pub(super) fn noise(stage: String, line: &str) -> Event {
    let line: String = line.chars().take(NOISE_LENGTH).collect();
    let message = format!("its worker wrote a line that is no event: {line}");
    Event::StageLog { stage, level: Level::Warn, message }
}
