//! The job description: all that a worker is told, as one JSON object on its standard input.

use std::{collections::BTreeMap, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::Digest;

/// The version of the job description and of the events. Both sides must agree on it.
pub const PROTOCOL: u32 = 3;

/// One stage to run. Self-contained: every path is absolute, nothing is read from the surroundings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Job {
    /// [`PROTOCOL`] of the scheduler.
    pub protocol: u32,
    /// The kind of the stage.
    pub kind: String,
    /// The name of the stage.
    pub stage: String,
    /// The resolved configuration, defaults filled in.
    pub config: serde_json::Value,
    /// Input artifacts by input name; an input that takes a list has several.
    pub inputs: BTreeMap<String, Vec<Artifact>>,
    /// The user's own files by the field of `config` that names them, with the digests that stand in the key.
    pub user_files: BTreeMap<String, Artifact>,
    /// What the names of [`Kind::references`](crate::Kind::references) stand for, by the field that holds them.
    pub pins: BTreeMap<String, String>,
    /// An existing folder. Each output of the kind is written below it, as `<output>/<outputs::NAME>/`.
    pub output: PathBuf,
    /// An existing, empty folder to work in, in the same file system as `output`.
    pub work: PathBuf,
    /// A folder that survives a killed attempt: the same stage with the same key gets it again. It exists if it was left.
    pub resume: PathBuf,
    /// What the stage may use.
    pub resources: Resources,
}

/// An input: a folder of read-only files, or, for a user's own file and where a kind with open inputs takes an output
/// that is one file, that file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Artifact {
    /// The folder (or file).
    pub path: PathBuf,
    /// The digest of its content.
    pub digest: Digest,
}

/// What a stage may use of the machine.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// Threads; `None` leaves it to the stage.
    pub cpus: Option<usize>,
    /// Main memory in bytes; `None` if nothing was said.
    pub memory_bytes: Option<u64>,
    /// CUDA devices; 0 runs on the CPU.
    pub gpus: usize,
    /// How long it should take at most, in seconds: what a cluster is asked for. See also the stage's timeout.
    pub time_seconds: Option<u64>,
}
