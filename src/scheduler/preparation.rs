//! What happens to a stage between its turn and its worker, on a thread of the crew: its key is locked, the cache is
//! asked once more, folders are made, inputs are laid out, the job is written down.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Seek, Write},
    path::{Path, PathBuf},
};

use pipe_stage::{Artifact, Digest, Form, Job, PROTOCOL};
use rustix::fs::{MemfdFlags, memfd_create};

use super::{Shared, ending::Ending};
use crate::{
    cache::{Acquired, ActionRecord, Attempt, CacheError, Flaw, Holder, Identity, Key, KeyLock, crash},
    config::{StageName, StageSpec},
    plan::{self, Action, Decision, Lookup, Reason},
};

/// A stage whose turn has come.
pub(super) struct Order<'run> {
    pub(super) spec: &'run StageSpec,
    /// [`Action::Run`].
    pub(super) decision: Decision,
    /// Whether it runs although the cache has what it makes.
    pub(super) forced: bool,
}

/// What became of it.
pub(super) enum Preparation {
    /// Another process is at work on the key.
    Busy(Box<Decision>, Option<Holder>),
    /// Another process has just made what is needed.
    Hit(Box<Decision>),
    /// The worker can start.
    Ready(Box<Ready>),
    /// It cannot.
    Failed(Ending),
}

/// A stage that only lacks its worker.
pub(super) struct Ready {
    pub(super) identity: Identity,
    pub(super) reasons: Vec<Reason>,
    pub(super) program: PathBuf,
    pub(super) attempt: Attempt,
    /// The job description, to be read from the beginning.
    pub(super) job: File,
}

impl Order<'_> {
    /// Does all of it.
    pub(super) fn prepare(self, shared: &Shared<'_>) -> Preparation {
        let declaration = self.spec.declaration;
        let program = match shared.programs.path(declaration.program) {
            Ok(program) => program.clone(),
            Err(error) => return Preparation::Failed(Ending::environment(&error, error.hint())),
        };
        let lock = match KeyLock::acquire(shared.home, &self.decision.key) {
            Ok(Acquired::Held(lock)) => lock,
            Ok(Acquired::Busy(holder)) => return Preparation::Busy(Box::new(self.decision), holder),
            Err(error) => return Preparation::Failed(Ending::environment(&error, None)),
        };
        crash::point("scheduler.locked");
        let Decision { identity, key, action, .. } = self.decision;
        // Whoever had the lock before may just have made what is needed.
        let action = if !self.forced && shared.records.get(&key).is_some() {
            let again = plan::decide(self.spec, identity.inputs.clone(), shared.externals.of(&self.spec.name), shared);
            if matches!(again.action, Action::Hit { .. }) {
                return Preparation::Hit(Box::new(again));
            }
            again.action
        } else {
            action
        };
        let reasons = match action {
            Action::Run { reasons } | Action::Maybe { reasons } => reasons,
            Action::Hit { .. } => Vec::new(),
        };
        let prepared = Attempt::begin(shared.home, lock, &self.spec.outputs).and_then(|attempt| {
            crash::point("scheduler.attempt");
            let job = job(self.spec, shared, &identity, &attempt)?;
            Ok((attempt, job))
        });
        let (attempt, job) = match prepared {
            Ok(prepared) => prepared,
            Err(error) => return Preparation::Failed(Ending::of_cache(error)),
        };
        match written(&job) {
            Ok(job) => Preparation::Ready(Box::new(Ready { identity, reasons, program, attempt, job })),
            Err(error) => Preparation::Failed(Ending::environment(&JobError(error), None)),
        }
    }
}

/// Asked behind the back of the event loop, the cache tells what is there, and not what was.
impl Lookup for Shared<'_> {
    fn record(&self, key: &Key) -> Option<ActionRecord> {
        self.records.get(key)
    }

    fn last(&self, _stage: &StageName) -> Option<ActionRecord> {
        None
    }

    fn verify(&self, artifact: &Digest) -> Result<(), Flaw> {
        self.store.verify(artifact).map(|_| ())
    }
}

fn job(spec: &StageSpec, shared: &Shared<'_>, identity: &Identity, attempt: &Attempt) -> Result<Job, CacheError> {
    let mut inputs = BTreeMap::new();
    for (port, digests) in &identity.inputs {
        let mut artifacts = Vec::with_capacity(digests.len());
        for (index, digest) in digests.iter().enumerate() {
            let path = attempt.inputs().join(port).join(index.to_string());
            shared.store.materialise(digest, &path)?;
            let form = spec.inputs.get(port).and_then(|taken| taken.get(index)).map(|taken| taken.form);
            let path = match form {
                Some(Form::File) => only_entry(&path).unwrap_or(path),
                Some(Form::Folder) | None => path,
            };
            artifacts.push(Artifact { path, digest: *digest });
        }
        inputs.insert(port.clone(), artifacts);
    }
    let user_files = spec.user_files.iter().filter_map(|file| {
        let digest = identity.files.get(&file.field)?.digest;
        Some((file.field.clone(), Artifact { path: shared.pipeline.folder.join(&file.path), digest }))
    });
    Ok(Job {
        protocol: PROTOCOL,
        kind: spec.declaration.kind.to_owned(),
        stage: spec.name.to_string(),
        config: spec.config.clone(),
        inputs,
        user_files: user_files.collect(),
        pins: identity.pins.clone(),
        output: attempt.output(),
        work: attempt.work(),
        resume: attempt.resume().to_owned(),
        resources: spec.resources,
    })
}

/// What stands in a folder that holds one thing.
fn only_entry(folder: &Path) -> Option<PathBuf> {
    let mut entries = fs::read_dir(folder).ok()?;
    let only = entries.next()?.ok()?.path();
    entries.next().is_none().then_some(only)
}

/// There is no memory, or no descriptor left.
#[derive(Debug, thiserror::Error)]
#[error("cannot write the job description into memory")]
struct JobError(#[source] io::Error);

/// A nameless file in memory that holds the job. Unlike a pipe, it can be written in one go, and whoever reads it can be
/// late.
fn written(job: &Job) -> io::Result<File> {
    let mut file = File::from(memfd_create("job", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(job)?)?;
    file.rewind()?;
    Ok(file)
}
