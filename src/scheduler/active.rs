//! One stage from the moment that its key is locked: its job, its worker, and the way of its outputs into the cache.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitStatus,
    sync::mpsc::SyncSender,
    time::Instant,
};

use indexmap::IndexMap;
use pipe_stage::{Artifact, Event as Said, Job, PROTOCOL, Status};
use rustix::process::Signal;

use super::{
    Message, Programs,
    ending::{self, Ending},
    keeper::Finished,
    process::Worker,
};
use crate::{
    cache::{ActionRecord, Attempt, CacheError, Environment, Home, Identity, KeyLock, Store, crash},
    config::{Pipeline, StageSpec},
    plan::CacheLookup,
};

/// The parts of the cache that a run works with.
pub(super) struct Cache<'run> {
    pub(super) home: &'run Home,
    pub(super) store: Store,
    pub(super) lookup: CacheLookup,
}

impl<'run> Cache<'run> {
    pub(super) fn new(home: &'run Home, pipeline: &Pipeline) -> Self {
        Self { home, store: Store::new(home), lookup: CacheLookup::new(home, &pipeline.name) }
    }
}

/// What a stage is to be run on.
pub(super) struct Order<'run> {
    pub(super) spec: &'run StageSpec,
    pub(super) pipeline: &'run Pipeline,
    pub(super) identity: Identity,
    /// Relative to the home.
    pub(super) log: PathBuf,
}

/// A stage whose worker runs.
pub(super) struct Active {
    worker: Worker,
    attempt: Attempt,
    identity: Identity,
    log: PathBuf,
    started: jiff::Timestamp,
    clock: Instant,
    last_word: Option<Status>,
    figures: IndexMap<String, serde_json::Value>,
    metrics: IndexMap<String, f64>,
    /// Lines on standard output that were no events.
    pub(super) noise: usize,
    stopped: bool,
}

impl Active {
    /// Lays out the inputs and starts the worker. `stage` marks its messages.
    pub(super) fn launch(
        order: Order<'_>,
        lock: KeyLock,
        cache: &Cache<'_>,
        programs: &Programs,
        messages: &SyncSender<Message>,
        stage: usize,
    ) -> Result<Self, Ending> {
        let declaration = order.spec.declaration;
        let program = programs.path(declaration.program).map_err(|error| Ending::environment(&error, error.hint()))?;
        let attempt = Attempt::begin(cache.home, lock, &order.spec.outputs).map_err(cache_failed)?;
        crash::point("scheduler.attempt");
        let job = job(&order, &attempt, &cache.store).map_err(cache_failed)?;
        let log = cache.home.root().join(&order.log);
        let (started, clock) = (jiff::Timestamp::now(), Instant::now());
        let worker = Worker::spawn(program, &job, &log, &attempt, messages, stage)
            .map_err(|error| Ending::environment(&error, None))?;
        crash::point("scheduler.spawned");
        Ok(Self {
            worker,
            attempt,
            identity: order.identity,
            log: order.log,
            started,
            clock,
            last_word: None,
            figures: IndexMap::new(),
            metrics: IndexMap::new(),
            noise: 0,
            stopped: false,
        })
    }

    /// Keeps what the record or the judgement will need.
    pub(super) fn heard(&mut self, said: &Said) {
        match said {
            // A step of training and an evaluation in between report different names.
            Said::Metric { values, .. } => self.metrics.extend(values.clone()),
            Said::Figure { name, value } => drop(self.figures.insert(name.clone(), value.clone())),
            Said::Result(status) => self.last_word = Some(status.clone()),
            Said::Progress { .. } | Said::Log { .. } => {}
        }
    }

    /// Asks the worker to stop, or makes it.
    pub(super) fn stop(&mut self, signal: Signal) {
        self.stopped = true;
        self.worker.signal(signal);
    }

    /// When it began.
    pub(super) fn clock(&self) -> Instant {
        self.clock
    }

    /// Relative to the home.
    pub(super) fn log(&self) -> &Path {
        &self.log
    }

    /// The worker is gone: what it made is to be kept, or the reason why not comes back.
    pub(super) fn conclude(self, spec: &StageSpec, status: ExitStatus) -> Result<Finished, Ending> {
        crash::point("scheduler.worker-ended");
        let (ended, duration_seconds) = (jiff::Timestamp::now(), self.clock.elapsed().as_secs_f64());
        ending::judge(self.last_word, status, self.stopped)?;
        let folder = self.attempt.output();
        let device = self.figures.get("device").and_then(|device| device.as_str()).map(str::to_owned);
        let record = ActionRecord {
            key: *self.attempt.lock().key(),
            stage: spec.name.to_string(),
            identity: self.identity,
            outputs: BTreeMap::new(),
            figures: self.figures,
            metrics: self.metrics,
            environment: Environment {
                device,
                threads: spec.resources.cpus,
                versions: BTreeMap::from([("pipe".to_owned(), env!("CARGO_PKG_VERSION").to_owned())]),
            },
            started: self.started,
            ended,
            duration_seconds,
            log: self.log,
        };
        let outputs = spec.outputs.iter().map(|output| (output.name.clone(), folder.join(&output.name))).collect();
        Ok(Finished { outputs, record, attempt: self.attempt })
    }
}

/// An error of the cache is the stage's fault only if it is about what the stage wrote.
pub(super) fn cache_failed(error: CacheError) -> Ending {
    match error {
        CacheError::Output(error) => Ending::stage(&error, None),
        error => Ending::environment(&error, None),
    }
}

fn job(order: &Order<'_>, attempt: &Attempt, store: &Store) -> Result<Job, CacheError> {
    let mut inputs = BTreeMap::new();
    for (port, digests) in &order.identity.inputs {
        let mut artifacts = Vec::with_capacity(digests.len());
        for (index, digest) in digests.iter().enumerate() {
            let path = attempt.inputs().join(port).join(index.to_string());
            store.materialise(digest, &path)?;
            artifacts.push(Artifact { path, digest: *digest });
        }
        inputs.insert(port.clone(), artifacts);
    }
    let user_files = order.spec.user_files.iter().filter_map(|file| {
        let digest = order.identity.files.get(&file.field)?.digest;
        Some((file.field.clone(), Artifact { path: order.pipeline.folder.join(&file.path), digest }))
    });
    Ok(Job {
        protocol: PROTOCOL,
        kind: order.spec.declaration.kind.to_owned(),
        stage: order.spec.name.to_string(),
        config: order.spec.config.clone(),
        inputs,
        user_files: user_files.collect(),
        output: attempt.output(),
        work: attempt.work(),
        resume: attempt.resume().to_owned(),
        resources: order.spec.resources,
    })
}
