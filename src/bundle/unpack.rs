//! A bundle as a folder, and what may be believed of it.

use std::{
    collections::BTreeSet,
    fs::{self, File, OpenOptions},
    io::{self, BufReader},
    os::unix::fs::OpenOptionsExt,
    path::{Component, Path, PathBuf},
};

use pipe_stage::{Declaration, Digest};

use super::{BundleError, Contents, EXPERIMENT, Experiment, Limits, Reader, gather::object, layout};
use crate::{
    cache::Manifest,
    config::{self, Pipeline, StageName},
};

/// A bundle that was unpacked, and is what its manifest says.
#[derive(Debug)]
pub struct Unpacked {
    folder: PathBuf,
    name: Digest,
    contents: Contents,
    experiment: Experiment,
}

impl Unpacked {
    /// Unpacks the bundle `file` into `folder`, which is there and empty. `allowed` is asked before anything is written;
    /// what it refuses is not unpacked. After an error the folder holds things that nobody may trust.
    ///
    /// # Errors
    /// If the bundle is not sound, or the folder cannot be written.
    pub fn new(
        file: &Path,
        folder: &Path,
        limits: &Limits,
        allowed: impl FnOnce(&Contents) -> Result<(), BundleError>,
    ) -> Result<Self, BundleError> {
        let input = BufReader::with_capacity(256 << 10, File::open(file).map_err(BundleError::Read)?);
        let reader = Reader::new(input, limits)?;
        allowed(reader.contents())?;
        let name = reader.name();
        let contents = reader.read(|entry, bytes| {
            let path = folder.join(&entry.path);
            if let Some(parent) = path.parent() {
                fs::create_dir_all(parent)?;
            }
            let mode = if entry.executable { 0o777 } else { 0o666 };
            let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
            io::copy(bytes, &mut file).map(drop)
        })?;
        let bytes = match contents.get(EXPERIMENT) {
            Some(_) => fs::read(folder.join(EXPERIMENT)).map_err(BundleError::Read)?,
            None => return Err(BundleError::Lacks { path: EXPERIMENT.to_owned() }),
        };
        let experiment = serde_json::from_slice(&bytes).map_err(|error| BundleError::Experiment(error.into()))?;
        let unpacked = Self { folder: folder.to_owned(), name, contents, experiment };
        unpacked.check()?;
        Ok(unpacked)
    }

    /// What the experiment says must be there is there.
    fn check(&self) -> Result<(), BundleError> {
        for (stage, of) in &self.experiment.stages {
            if StageName::new(stage).is_none() {
                return Err(BundleError::Experiment(io::Error::other(format!("{stage:?} is no name for a stage"))));
            }
            // It is run with as many again.
            if let Some(threads) = of.environment.threads.filter(|threads| !(1..=config::MAX_CPUS).contains(threads)) {
                let problem = format!("the stage `{stage}` cannot have run with {threads} threads");
                return Err(BundleError::Experiment(io::Error::other(problem)));
            }
            if let Some(log) = of.log.as_ref().filter(|log| self.contents.get(log).is_none()) {
                return Err(BundleError::Lacks { path: log.clone() });
            }
        }
        for artifact in &self.experiment.artifacts {
            let lacks = |digest: &Digest| BundleError::Lacks { path: object(digest) };
            let files = self.files(artifact)?.ok_or_else(|| lacks(artifact))?;
            if let Some(file) = files.entries().iter().find(|file| self.contents.get(&object(&file.digest)).is_none()) {
                return Err(lacks(&file.digest));
            }
        }
        Ok(())
    }

    /// The folder, after it was moved there.
    pub fn moved_to(self, folder: &Path) -> Self {
        Self { folder: folder.to_owned(), ..self }
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The digest of the manifest: the name of the experiment.
    pub fn name(&self) -> Digest {
        self.name
    }

    /// What is in it.
    pub fn contents(&self) -> &Contents {
        &self.contents
    }

    /// The run that it tells of.
    pub fn experiment(&self) -> &Experiment {
        &self.experiment
    }

    /// The list of the files of an artifact, if it is in the bundle.
    ///
    /// # Errors
    /// If it is not a list.
    pub fn files(&self, artifact: &Digest) -> Result<Option<Manifest>, BundleError> {
        let path = object(artifact);
        if self.contents.get(&path).is_none() {
            return Ok(None);
        }
        let bytes = fs::read(self.folder.join(&path)).map_err(BundleError::Read)?;
        let list = std::str::from_utf8(&bytes).ok().and_then(|text| Manifest::parse(text).ok());
        list.map(Some).ok_or(BundleError::List { path })
    }

    /// Where the bytes of an object are, if the bundle has them.
    pub fn object(&self, digest: &Digest) -> Option<PathBuf> {
        let path = object(digest);
        self.contents.get(&path).map(|_| self.folder.join(path))
    }

    /// The pipeline, held to what a bundle may have: it names no file outside of the bundle, extends nothing, and puts
    /// nothing anywhere.
    ///
    /// # Errors
    /// If it is missing, not valid, or reaches out of the bundle.
    pub fn pipeline(&self, registry: &'static [Declaration]) -> Result<Pipeline, BundleError> {
        let entry = format!("{}/{}", layout::PROJECT, layout::PIPELINE);
        if self.contents.get(&entry).is_none() {
            return Err(BundleError::Lacks { path: entry });
        }
        let path = self.folder.join(&entry);
        let text = fs::read_to_string(&path).map_err(BundleError::Read)?;
        // Before anything of it is followed.
        if let Ok(root) = pipe_yaml::parse(&text)
            && let Some((key, _)) =
                root.entries().into_iter().flatten().find(|(key, _)| !["name", "stages"].contains(&key.name.as_str()))
        {
            return Err(BundleError::Unresolved { field: key.name.clone() });
        }
        let mut pipeline = config::load(&path, &[], registry)?;
        let project: BTreeSet<&str> = self.projects_paths();
        for spec in pipeline.stages.values_mut() {
            for file in &spec.user_files {
                let inside =
                    file.path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
                let known = file.path.components().collect::<PathBuf>();
                if !inside || !known.to_str().is_some_and(|path| project.contains(path)) {
                    let (stage, path) = (spec.name.to_string(), file.path.clone());
                    return Err(BundleError::Outside { stage, field: file.field.clone(), path });
                }
            }
            spec.checkout.clear();
        }
        let unknown = self.experiment.stages.keys().find(|stage| !pipeline.stages.contains_key(stage.as_str()));
        match unknown {
            Some(stage) => {
                let problem = format!("it tells of a stage `{stage}` that its pipeline does not have");
                Err(BundleError::Experiment(io::Error::other(problem)))
            }
            None => Ok(pipeline),
        }
    }

    /// Every file of the project and every folder that one lies in, relative to it.
    fn projects_paths(&self) -> BTreeSet<&str> {
        let prefix = format!("{}/", layout::PROJECT);
        let files = self.contents.entries().iter().filter_map(move |entry| entry.path.strip_prefix(prefix.as_str()));
        files.flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]).chain([path])).collect()
    }
}
