//! What is being collected for a bundle: the pipeline, the user's files, lists of files, logs, and what there is to tell.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry as Slot},
    path::{Path, PathBuf},
};

use pipe_stage::Digest;

use super::{Bytes, Gathered, Given, Request, Variables, device, object};
use crate::{
    bundle::{
        BundleError, Contents, EXPERIMENT, Entry, Experiment, ExperimentStage, Limits, ShareError, layout, logs,
        secrets::Secrets,
    },
    cache::{ActionRecord, Environment, Flaw, Store, UserFiles},
    config::{Pipeline, StageSpec},
    pins::{FILE_NAME, Pins},
    runs::{Machine, Outcome, StageRun, resolved_yaml},
};

/// A bundle that is being collected.
pub(super) struct Collection<'run> {
    pub(super) request: &'run Request<'run>,
    pub(super) store: Store,
    pub(super) secrets: Secrets,
    pub(super) variables: &'run Variables,
    pub(super) actions: &'run BTreeMap<&'run str, ActionRecord>,
    pub(super) entries: BTreeMap<String, (Entry, Bytes)>,
    /// The artifacts whose files are among the entries.
    pub(super) whole: BTreeSet<Digest>,
    pub(super) notes: Vec<String>,
}

impl Collection<'_> {
    pub(super) fn finish(mut self, mut pipeline: Pipeline) -> Result<Gathered, ShareError> {
        let run = self.request.run;
        let folder = pipeline.folder.clone();
        for spec in pipeline.stages.values_mut() {
            self.user_files(&folder, spec)?;
            // Where copies go is a matter of the machine.
            spec.checkout.clear();
        }
        self.pipeline(&pipeline)?;
        let pins = self.pins(&pipeline);
        if !pins.is_empty() {
            self.add_bytes(format!("{}/{FILE_NAME}", layout::PROJECT), pins.to_text().into_bytes());
        }
        let mut stages = indexmap::IndexMap::new();
        for (name, stage) in &run.stages {
            self.artifacts(name, stage)?;
            let log = self.log(name, stage);
            let gpus = pipeline.stages.get(name.as_str()).map_or(0, |spec| spec.resources.gpus);
            stages.insert(name.clone(), self.stage(name, stage, gpus, log));
        }
        let experiment = Experiment {
            run: run.id.clone(),
            pipeline: run.pipeline.clone(),
            status: run.status,
            started: run.started,
            ended: run.ended,
            duration_seconds: run.duration_seconds,
            version: run.version.clone(),
            machine: run.machine.clone(),
            stages,
            artifacts: std::mem::take(&mut self.whole),
        };
        let mut bytes = serde_json::to_vec_pretty(&experiment)
            .map_err(|error| ShareError::Read { path: EXPERIMENT.into(), source: error.into() })?;
        bytes.push(b'\n');
        self.add_bytes(EXPERIMENT.to_owned(), bytes);
        let mut sources = BTreeMap::new();
        let mut entries = Vec::with_capacity(self.entries.len());
        for (path, (entry, bytes)) in self.entries {
            entries.push(entry);
            sources.insert(path, bytes);
        }
        let contents = Contents::new(entries, &Limits::default())?;
        Ok(Gathered { contents, sources, experiment, secrets: self.secrets, notes: self.notes })
    }

    fn add_bytes(&mut self, path: String, bytes: Vec<u8>) {
        let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
        let entry = Entry { path: path.clone(), digest, size, executable: false };
        self.entries.insert(path, (entry, Bytes::Here(bytes)));
    }

    /// Adds a file. The same file may be added twice, by stages that both take it.
    fn add_file(&mut self, entry: Entry, at: PathBuf) -> Result<(), ShareError> {
        match self.entries.entry(entry.path.clone()) {
            Slot::Vacant(slot) => drop(slot.insert((entry, Bytes::At(at)))),
            Slot::Occupied(slot) if slot.get().0 == entry => {}
            Slot::Occupied(_) => return Err(BundleError::Changed { path: entry.path }.into()),
        }
        Ok(())
    }

    /// Adds what a stage takes of the user's, if it still is what the run took, and lets the stage name it there.
    fn user_files(&mut self, folder: &Path, spec: &mut StageSpec) -> Result<(), ShareError> {
        let taken = self.actions.get(spec.name.as_str()).map(|action| &action.identity.files);
        if taken.is_none() && !spec.user_files.is_empty() {
            self.notes
                .push(format!("nothing tells which files the stage `{}` took: they are as they are now", spec.name));
        }
        for index in 0..spec.user_files.len() {
            let file = &spec.user_files[index];
            let path = folder.join(&file.path);
            let (identity, files) = UserFiles::new(self.request.home).list(&path).map_err(|source| {
                let (stage, field) = (spec.name.to_string(), file.field.clone());
                ShareError::UserFile { stage, field, source: Box::new(source) }
            })?;
            if taken.is_some_and(|taken| taken.get(&file.field) != Some(&identity)) {
                let (stage, field) = (spec.name.to_string(), file.field.clone());
                return Err(ShareError::FileChanged { stage, field, path });
            }
            let place = layout::place(&file.path, spec.kept_path(file), &identity);
            for entry in files.entries() {
                let (place, at) = if identity.folder {
                    (place.join(&entry.path), path.join(&entry.path))
                } else {
                    (place.clone(), path.clone())
                };
                let path = format!("{}/{}", layout::PROJECT, place.display());
                let (digest, size, executable) = (entry.digest, entry.size, entry.executable);
                self.add_file(Entry { path, digest, size, executable }, at)?;
            }
            spec.user_files[index].path = place;
        }
        Ok(())
    }

    /// What the names of things elsewhere stood for when the run took them. The file beside the pipeline may say something
    /// newer by now.
    fn pins(&mut self, pipeline: &Pipeline) -> Pins {
        let mut pins = Pins::default();
        for spec in pipeline.stages.values() {
            let taken = self.actions.get(spec.name.as_str()).map(|action| &action.identity.pins);
            for reference in &spec.references {
                match taken.and_then(|taken| taken.get(&reference.field)) {
                    Some(pin) => pins.set(&reference.name, pin),
                    None => self.notes.push(format!("nothing tells which version of {} was taken", reference.name)),
                }
            }
        }
        pins
    }

    fn pipeline(&mut self, pipeline: &Pipeline) -> Result<(), ShareError> {
        let path = format!("{}/{}", layout::PROJECT, layout::PIPELINE);
        for spec in pipeline.stages.values() {
            // As YAML the value might look different.
            if let Some(variable) = self.secrets.in_json(&spec.config) {
                return Err(ShareError::Secret { path, variable: variable.to_owned() });
            }
        }
        self.add_bytes(path, resolved_yaml(pipeline).into_bytes());
        Ok(())
    }

    /// Adds the lists of the files of a stage's artifacts, and the files where they are wanted.
    fn artifacts(&mut self, name: &str, stage: &StageRun) -> Result<(), ShareError> {
        let wanted = self.request.artifacts.of(name);
        if wanted && let Some(variable) = self.secrets.unknown_of(name) {
            let (stage, variable) = (name.to_owned(), variable.to_owned());
            return Err(ShareError::SecretUnknown { stage, variable });
        }
        for (output, digest) in &stage.outputs {
            let manifest = match self.store.verify(digest) {
                Ok(manifest) => manifest,
                Err(Flaw::Missing { .. }) if !wanted => {
                    self.notes.push(format!("the list of the files of `{name}.{output}` is gone from the cache"));
                    continue;
                }
                Err(flaw) => {
                    let artifact = format!("{name}.{output}");
                    return Err(ShareError::Artifact { artifact, digest: *digest, flaw });
                }
            };
            self.add_bytes(object(digest), manifest.to_text().into_bytes());
            if wanted && self.whole.insert(*digest) {
                for file in manifest.entries() {
                    let entry =
                        Entry { path: object(&file.digest), digest: file.digest, size: file.size, executable: false };
                    self.add_file(entry, self.store.object(&file.digest))?;
                }
            }
        }
        Ok(())
    }

    /// Adds the log of a stage, and names its entry.
    fn log(&mut self, name: &str, stage: &StageRun) -> Option<String> {
        let log = stage.log.as_ref()?;
        if let Some(variable) = self.secrets.unknown_of(name) {
            self.notes.push(format!(
                "the log of `{name}` is left out: it may hold `{variable}`, which is not set to the same value here, so that \
                 it cannot be taken out"
            ));
            return None;
        }
        match logs::read(&self.request.home.root().join(log), &self.secrets) {
            Ok(text) => {
                let path = format!("logs/{name}.log");
                self.add_bytes(path.clone(), text.into_bytes());
                Some(path)
            }
            Err(error) => {
                self.notes.push(format!("the log of `{name}` is left out: it cannot be read ({error})"));
                None
            }
        }
    }

    fn stage(&self, name: &str, stage: &StageRun, gpus: usize, log: Option<String>) -> ExperimentStage {
        // What a hit was made on, only its own record could tell.
        let unknown = Machine::default();
        let machine = if stage.outcome == Outcome::Hit { &unknown } else { &self.request.run.machine };
        let device = Some(device(&stage.environment, gpus, machine));
        let identity = self.actions.get(name).map(|action| &action.identity);
        let variables = self.variables.get(name);
        let given = variables
            .into_iter()
            .flatten()
            .any(|(name, given)| !matches!(given, Given::Unset) && !self.request.not_secret.contains(name));
        // Words may hold a value that is not known here; numbers do not.
        let told = self.secrets.unknown_of(name).is_none();
        let figures = stage.figures.iter().filter(|(_, value)| told || value.is_number() || value.is_boolean());
        let error = stage.error.iter().filter(|_| told);
        ExperimentStage {
            kind: stage.kind.clone(),
            kind_version: identity.map(|identity| identity.version),
            outcome: stage.outcome,
            key: stage.key.filter(|_| !given && identity.is_some()),
            inputs: identity.map(|identity| identity.inputs.clone()).unwrap_or_default(),
            files: identity.map(|identity| identity.files.clone()).unwrap_or_default(),
            variables: variables
                .into_iter()
                .flatten()
                .map(|(name, given)| (name.clone(), !matches!(given, Given::Unset)))
                .collect(),
            outputs: stage.outputs.clone(),
            figures: figures
                .map(|(name, value)| (self.secrets.without_text(name), self.secrets.without_json(value)))
                .collect(),
            metrics: stage.metrics.clone(),
            environment: Environment { device, ..stage.environment.clone() },
            duration_seconds: if stage.outcome == Outcome::Hit { 0.0 } else { stage.duration_seconds },
            error: error.map(|line| self.secrets.without_text(line)).collect(),
            log,
        }
    }
}
