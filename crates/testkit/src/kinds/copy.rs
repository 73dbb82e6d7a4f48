//! Kinds that take a file or a folder of the user's: one copies it, one says how large it is.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
};

use pipe_stage::{Context, Failure, Kind, Port, Problems, Stage, UserFile, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::FILE;
use crate::gate;

/// The kind.
pub(super) struct CopyFile;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Config {
    /// The file or folder.
    path: PathBuf,
    /// A gate to pass before it is read.
    #[serde(default)]
    #[schemars(extend("x-execution-only" = true))]
    gate: Option<PathBuf>,
}

impl Kind for CopyFile {
    type Config = Config;
    const KIND: &'static str = "copy_file";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Copies a file or a folder";
    const INPUTS: &'static [Port] = &[];

    fn user_files(config: &Config) -> Vec<UserFile> {
        vec![UserFile { field: "path".to_owned(), path: config.path.clone() }]
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Stage for CopyFile {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        if let Some(folder) = &config.gate {
            gate::pass(folder)?;
        }
        let from = &context.user_file("path")?.path;
        if from.is_dir() {
            copy(from, &context.output())?;
        } else {
            fs::copy(from, context.output().join(FILE))?;
        }
        Ok(())
    }
}

/// Copies what is in the folder `from` into the folder `to`, which is there. Links are followed.
fn copy(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            fs::create_dir(&to)?;
            copy(&from, &to)?;
        } else {
            fs::copy(&from, &to)?;
        }
    }
    Ok(())
}

/// Writes the size of a file, in bytes.
pub(super) struct MeasureFile;

#[derive(Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct MeasureConfig {
    /// The file.
    path: PathBuf,
}

impl Kind for MeasureFile {
    type Config = MeasureConfig;
    const KIND: &'static str = "measure_file";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Says how large a file is";
    const INPUTS: &'static [Port] = &[];

    fn user_files(config: &MeasureConfig) -> Vec<UserFile> {
        vec![UserFile { field: "path".to_owned(), path: config.path.clone() }]
    }
}

impl Validate for MeasureConfig {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl Stage for MeasureFile {
    fn run(_config: &MeasureConfig, context: &Context) -> Result<(), Failure> {
        let size = fs::metadata(&context.user_file("path")?.path)?.len();
        fs::write(context.output().join(FILE), size.to_string())?;
        Ok(())
    }
}
