//! From a run in the cache to what stands in its bundle.

mod collection;

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fs::File,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use pipe_stage::{Declaration, Digest};

use self::collection::Collection;
use super::{
    Contents, Experiment, ShareError, Writer,
    secrets::{Secrets, Watch},
};
use crate::{
    cache::{ActionRecord, Environment, Home, Records, Store},
    config::{self, Pipeline, Source, StageSpec},
    graph::Graph,
    runs::{Machine, RunRecord, RunStatus, Runs},
};

/// What is to be shared.
#[derive(Debug, Clone)]
pub struct Request<'run> {
    /// The home that the run lies in.
    pub home: &'run Home,
    /// The run.
    pub run: &'run RunRecord,
    /// The artifacts whose files come along.
    pub artifacts: Artifacts,
    /// Variables whose values may be seen.
    pub not_secret: &'run [String],
    /// Whether a run that did not finish is shared too.
    pub partial: bool,
}

/// The artifacts whose files come along.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Artifacts {
    /// Of none.
    None,
    /// Of every stage.
    All,
    /// Of these stages.
    Of(Vec<String>),
}

impl Artifacts {
    fn of(&self, stage: &str) -> bool {
        match self {
            Self::None => false,
            Self::All => true,
            Self::Of(stages) => stages.iter().any(|name| name == stage),
        }
    }
}

/// A bundle that can be written.
#[derive(Debug)]
pub struct Gathered {
    contents: Contents,
    sources: BTreeMap<String, Bytes>,
    experiment: Experiment,
    secrets: Secrets,
    notes: Vec<String>,
}

/// Where the bytes of an entry are.
#[derive(Debug)]
enum Bytes {
    Here(Vec<u8>),
    At(PathBuf),
}

impl Gathered {
    /// Collects what `request` asks for. `variable` reads the environment, where the values of variables are looked up
    /// that must not get into the bundle.
    ///
    /// # Errors
    /// If the run is not one to share, or something of it is gone, damaged or changed.
    pub fn new(
        request: &Request<'_>,
        registry: &'static [Declaration],
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ShareError> {
        let run = request.run;
        let unfinished = run.status != RunStatus::Done && !request.partial;
        if unfinished || run.status == RunStatus::Running {
            return Err(ShareError::Unfinished { run: run.id.clone(), status: run.status });
        }
        if let Artifacts::Of(stages) = &request.artifacts
            && let Some(stage) = stages.iter().find(|stage| !run.stages.contains_key(*stage))
        {
            let known = run.stages.keys().cloned().collect();
            return Err(ShareError::UnknownStage { run: run.id.clone(), stage: stage.clone(), known });
        }
        let records = Records::new(request.home);
        let actions: BTreeMap<&str, ActionRecord> =
            run.stages.iter().filter_map(|(name, stage)| Some((name.as_str(), records.get(&stage.key?)?))).collect();
        let text = Runs::new(request.home)
            .resolved(&run.resolved)
            .ok_or_else(|| ShareError::PipelineGone { run: run.id.clone() })?;
        let folder = run.file.parent().map_or_else(PathBuf::new, Path::to_owned);
        let mut pipeline = config::parse(Source::new(&run.file, text), folder, &[], registry)?;
        let graph = Graph::new(&pipeline)?;
        let shared = graph.needed_for(pipeline.stages.keys().filter(|name| run.stages.contains_key(name.as_str())));
        pipeline.stages.retain(|name, _| shared.contains(name));

        let variables = variables(&pipeline, &actions);
        let given = variables.iter().flat_map(|(stage, variables)| {
            let secret = variables.iter().filter(|(name, _)| !request.not_secret.contains(name));
            secret.filter_map(|(name, given)| match given {
                Given::Unset => None,
                Given::Unknown => Some((stage.as_str(), name.as_str(), None)),
                Given::Value(digest) => Some((stage.as_str(), name.as_str(), Some(*digest))),
            })
        });
        let collection = Collection {
            request,
            store: Store::new(request.home),
            secrets: Secrets::look_up(given, variable),
            variables: &variables,
            actions: &actions,
            entries: BTreeMap::new(),
            whole: BTreeSet::new(),
            notes: Vec::new(),
        };
        collection.finish(pipeline)
    }

    /// What will be in it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The digest of the manifest: the name of the experiment.
    pub fn name(&self) -> Digest {
        Digest::of(self.contents.to_text().as_bytes())
    }

    /// The run as it is told.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// What is not in it that one could look for, and why.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Writes the bundle.
    ///
    /// # Errors
    /// If something changed since it was collected, holds the value of a variable, or `output` cannot be written.
    pub fn write<W: Write>(&self, output: W) -> Result<W, ShareError> {
        let mut writer = Writer::new(output, &self.contents)?;
        for entry in self.contents.entries() {
            let bytes: Box<dyn Read + '_> = match self.sources.get(&entry.path) {
                Some(Bytes::Here(bytes)) => Box::new(&bytes[..]),
                Some(Bytes::At(path)) => {
                    Box::new(File::open(path).map_err(|source| ShareError::Read { path: path.clone(), source })?)
                }
                None => Box::new(std::io::empty()),
            };
            let mut watch = Watch::new(bytes, &self.secrets);
            let written = writer.entry(&mut watch);
            if let Some(variable) = watch.seen {
                return Err(ShareError::Secret { path: entry.path.clone(), variable: variable.to_owned() });
            }
            written?;
        }
        Ok(writer.finish()?)
    }
}

/// How a stage was given a variable.
enum Given {
    Unset,
    Value(Digest),
    /// It was, but its record does not tell the value.
    Unknown,
}

type Variables = BTreeMap<String, BTreeMap<String, Given>>;

/// The variables that each stage was given.
fn variables(pipeline: &Pipeline, actions: &BTreeMap<&str, ActionRecord>) -> Variables {
    let of = |spec: &StageSpec| match actions.get(spec.name.as_str()) {
        Some(action) => {
            let given = |value: &Option<Digest>| value.map_or(Given::Unset, Given::Value);
            action.identity.environment.iter().map(|(name, value)| (name.clone(), given(value))).collect()
        }
        None => spec.environment.iter().map(|name| (name.clone(), Given::Unknown)).collect(),
    };
    pipeline.stages.values().map(|spec| (spec.name.to_string(), of(spec))).collect()
}

/// What computed a stage: `cpu`, or the model of a GPU, or `cuda` if that is not known.
pub(crate) fn device(environment: &Environment, gpus: usize, machine: &Machine) -> String {
    match &environment.device {
        Some(device) => device.clone(),
        None if gpus == 0 => "cpu".to_owned(),
        None => machine.gpus.first().cloned().unwrap_or_else(|| "cuda".to_owned()),
    }
}

/// Where an object stands in a bundle.
pub(crate) fn object(digest: &Digest) -> String {
    format!("objects/{digest}")
}
