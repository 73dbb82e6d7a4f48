//! What stages take from outside the pipeline, looked at before the plan begins: the user's own files, the pins of what is
//! on other machines, and the environment variables that a stage declares.

use std::{collections::BTreeMap, ffi::OsString};

use indexmap::IndexSet;
use pipe_stage::{Digest, Reference};
use pipe_yaml::Problem;

use crate::{
    cache::{FileIdentity, UserFiles},
    config::{ConfigError, Pipeline, StageName, StageSpec},
    pins::Pins,
};

/// What one stage takes from outside the pipeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct External {
    /// The user's files, by the field that names them.
    pub files: BTreeMap<String, FileIdentity>,
    /// What the names of things outside of this machine stand for, by the field that holds them.
    pub pins: BTreeMap<String, String>,
    /// Those of them that nothing is known of yet: a run asks what they stand for before it begins.
    pub unpinned: Vec<Reference>,
    /// The declared environment variables with the digests of their values; `None` if not set.
    pub environment: BTreeMap<String, Option<Digest>>,
}

/// The same for every stage of a pipeline.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Externals(BTreeMap<StageName, External>);

impl Externals {
    /// Looks at what the stages `selected` take. `variable` reads the environment, `pins` is what is pinned.
    ///
    /// # Errors
    /// Every file that is missing or cannot be read, each shown where it is named.
    pub fn identify(
        pipeline: &Pipeline,
        selected: &IndexSet<StageName>,
        files: &UserFiles,
        pins: &Pins,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, ConfigError> {
        let mut externals = Self::default();
        let mut problems = Vec::new();
        let outward = |spec: &&StageSpec| {
            !spec.user_files.is_empty() || !spec.references.is_empty() || !spec.environment.is_empty()
        };
        for spec in pipeline.stages.values().filter(|spec| selected.contains(&spec.name)).filter(outward) {
            let mut external = External::default();
            for file in &spec.user_files {
                match files.identify(&pipeline.folder.join(&file.path)) {
                    Ok(identity) => drop(external.files.insert(file.field.clone(), identity)),
                    Err(error) => problems.push(Problem {
                        span: Some(spec.file_span(&file.field)),
                        message: pipe_stage::chain(&error).join(": "),
                        help: None,
                    }),
                }
            }
            for reference in &spec.references {
                match pins.get(&reference.name) {
                    Some(pin) => drop(external.pins.insert(reference.field.clone(), pin.to_owned())),
                    None => external.unpinned.push(reference.clone()),
                }
            }
            let digest = |name: &String| variable(name).map(|value| Digest::of(value.as_encoded_bytes()));
            external.environment = spec.environment.iter().map(|name| (name.clone(), digest(name))).collect();
            externals.0.insert(spec.name.clone(), external);
        }
        if problems.is_empty() { Ok(externals) } else { Err(pipeline.invalid(problems)) }
    }

    /// What one stage takes.
    pub fn of(&self, stage: &StageName) -> &External {
        static NONE: External = External {
            files: BTreeMap::new(),
            pins: BTreeMap::new(),
            unpinned: Vec::new(),
            environment: BTreeMap::new(),
        };
        self.0.get(stage).unwrap_or(&NONE)
    }

    #[cfg(test)]
    pub(super) fn insert(&mut self, stage: &StageName, field: &str, identity: FileIdentity) {
        self.0.entry(stage.clone()).or_default().files.insert(field.to_owned(), identity);
    }
}
