//! A stage run without an engine: a job in, its result and its events out. For the tests of the kinds.
//!
//! The outputs come into the folder of the trial, each in a folder of its name; what the stage leaves to resume from lies
//! beside them in `.trial`, where a second trial in the same folder finds it.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, atomic::AtomicBool},
};

use pipe_stage::{
    Artifact, Context, Digest, Event, Failure, Job, Level, PROTOCOL, Problems, Resources, Stage, Validate,
};
use serde_json::{Map, Value};

/// A stage that is about to run.
#[derive(Debug)]
pub struct Trial {
    folder: PathBuf,
    inputs: BTreeMap<String, Vec<Artifact>>,
    user_files: BTreeMap<String, Artifact>,
    resources: Resources,
    cancelled: bool,
}

/// A stage that ran.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub result: Result<(), Failure>,
    /// What it said.
    pub events: Vec<Event>,
    folder: PathBuf,
}

impl Trial {
    /// A trial in a folder of its own, which need not exist.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            inputs: BTreeMap::new(),
            user_files: BTreeMap::new(),
            resources: Resources::default(),
            cancelled: false,
        }
    }

    /// Gives the artifact at `path` as the input `name`, under the digest of that name. Said again, the input is a list.
    #[must_use]
    pub fn input(mut self, name: &str, path: &Path) -> Self {
        let artifact = Artifact { path: path.to_owned(), digest: Digest::of(name.as_bytes()) };
        self.inputs.entry(name.to_owned()).or_default().push(artifact);
        self
    }

    /// Gives the user's file or folder at `path` for the field `field`; the engine found that it has this digest.
    #[must_use]
    pub fn user_file(mut self, field: &str, path: &Path, digest: Digest) -> Self {
        self.user_files.insert(field.to_owned(), Artifact { path: path.to_owned(), digest });
        self
    }

    /// Lets the stage use so many threads.
    #[must_use]
    pub fn cpus(mut self, cpus: impl Into<Option<usize>>) -> Self {
        self.resources.cpus = cpus.into();
        self
    }

    /// Whether it is asked to stop before it begins.
    #[must_use]
    pub fn cancelled(mut self, cancelled: bool) -> Self {
        self.cancelled = cancelled;
        self
    }

    /// Runs the kind `S` with a configuration as it would stand in a pipeline.
    pub fn run<S: Stage>(self, config: Value) -> Ran {
        self.run_config::<S>(&serde_json::from_value(config).unwrap())
    }

    /// The same with a configuration that has its type.
    pub fn run_config<S: Stage>(self, config: &S::Config) -> Ran {
        let (output, aside) = (self.folder.clone(), self.folder.join(".trial"));
        for made in S::outputs(config) {
            fs::create_dir_all(output.join(made.name)).unwrap();
        }
        let job = Job {
            protocol: PROTOCOL,
            kind: S::KIND.to_owned(),
            stage: "trial".to_owned(),
            config: serde_json::to_value(config).unwrap(),
            inputs: self.inputs,
            user_files: self.user_files,
            pins: BTreeMap::new(),
            output,
            work: aside.join("work"),
            resume: aside.join("resume"),
            resources: self.resources,
        };
        let said = Said::default();
        let cancelled = Arc::new(AtomicBool::new(self.cancelled));
        let result = S::run(config, &Context::new(job, Box::new(said.clone()), cancelled));
        Ran { result, events: said.events(), folder: self.folder }
    }
}

impl Ran {
    /// The folder of the only output.
    pub fn output(&self) -> PathBuf {
        self.output_named("out")
    }

    /// The folder of one of several outputs.
    pub fn output_named(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Itself, or why it failed.
    ///
    /// # Errors
    /// The failure.
    pub fn done(mut self) -> Result<Self, Failure> {
        std::mem::replace(&mut self.result, Ok(())).map(|()| self)
    }

    /// The error and its causes in one line.
    ///
    /// # Panics
    /// If there was none.
    pub fn error(&self) -> String {
        self.result.as_ref().unwrap_err().chain().join(": ")
    }

    /// All figures.
    pub fn figures(&self) -> Value {
        let figures = self.events.iter().filter_map(|event| match event {
            Event::Figure { name, value } => Some((name.clone(), value.clone())),
            _ => None,
        });
        figures.collect::<Map<_, _>>().into()
    }

    /// One figure.
    pub fn figure(&self, wanted: &str) -> Option<&Value> {
        self.events.iter().find_map(|event| match event {
            Event::Figure { name, value } if name == wanted => Some(value),
            _ => None,
        })
    }

    /// What it said, of this importance.
    pub fn said(&self, wanted: Level) -> Vec<&str> {
        let messages = self.events.iter().filter_map(|event| match event {
            Event::Log { level, message } if *level == wanted => Some(message.as_str()),
            _ => None,
        });
        messages.collect()
    }
}

/// A problem of a configuration: field, message, help.
pub type Problem = (String, String, Option<String>);

/// What [`Validate`] finds wrong with a configuration of a stage that has these inputs.
pub fn problems<S: Stage>(config: Value, inputs: &[&str]) -> Vec<Problem> {
    let config: S::Config = serde_json::from_value(config).unwrap();
    let inputs: BTreeSet<String> = inputs.iter().map(|input| (*input).to_owned()).collect();
    let mut problems = Problems::default();
    config.validate(&inputs, &mut problems);
    problems.into_inner()
}

/// Collects events.
#[derive(Clone, Default)]
struct Said(Arc<Mutex<Vec<u8>>>);

impl Said {
    fn events(&self) -> Vec<Event> {
        let bytes = self.0.lock().unwrap();
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| serde_json::from_slice(line).unwrap()).collect()
    }
}

impl Write for Said {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
