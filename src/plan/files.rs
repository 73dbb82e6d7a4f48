//! The user's own files that a pipeline names, hashed before the plan begins.

use std::collections::BTreeMap;

use indexmap::IndexSet;
use pipe_yaml::Problem;

use crate::{
    cache::{FileIdentity, UserFiles},
    config::{ConfigError, Pipeline, StageName},
};

/// The identities of the user's files, by stage and by the field that names them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Files(BTreeMap<StageName, BTreeMap<String, FileIdentity>>);

impl Files {
    /// Looks at the files that the stages `selected` name.
    ///
    /// # Errors
    /// Every file that is missing or cannot be read, each shown at the field that names it.
    pub fn identify(
        pipeline: &Pipeline,
        selected: &IndexSet<StageName>,
        files: &UserFiles,
    ) -> Result<Self, ConfigError> {
        let mut identities = Self::default();
        let mut problems = Vec::new();
        for spec in pipeline.stages.values().filter(|spec| selected.contains(&spec.name)) {
            for file in &spec.user_files {
                match files.identify(&pipeline.folder.join(&file.path)) {
                    Ok(identity) => identities.insert(&spec.name, file.field, identity),
                    Err(error) => problems.push(Problem {
                        span: Some(spec.field_span(file.field)),
                        message: chain(&error),
                        help: None,
                    }),
                }
            }
        }
        if problems.is_empty() { Ok(identities) } else { Err(pipeline.invalid(problems)) }
    }

    /// The files of one stage, by field.
    pub fn of(&self, stage: &StageName) -> &BTreeMap<String, FileIdentity> {
        static NONE: BTreeMap<String, FileIdentity> = BTreeMap::new();
        self.0.get(stage).unwrap_or(&NONE)
    }

    pub(super) fn insert(&mut self, stage: &StageName, field: &str, identity: FileIdentity) {
        self.0.entry(stage.clone()).or_default().insert(field.to_owned(), identity);
    }
}

fn chain(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(cause) => format!("{error}: {}", chain(cause)),
        None => error.to_string(),
    }
}
