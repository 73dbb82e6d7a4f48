//! Checkpoints of a training run: everything that the next update depends on, so that a run that was stopped ends with
//! the bytes of one that was not.
//!
//! There is no generator state in them: dropout and the order of samples are functions of seed and update. A
//! checkpoint is a folder `checkpoint-UPDATE-DIGEST`:
//!
//! ```text
//! manifest.json   update, threads, device, tensors with shapes, and the digest of every other file
//! tensors.f32     value, running mean and running square of every parameter, little-endian float32, one by one; with
//!                 states in 8 bits the codes of both, in bytes, and the scales of both, in the place of the means
//! ...             what the stage keeps beside them, such as its metrics so far
//! ```
//!
//! DIGEST is that of the manifest, so that a flipped bit anywhere is seen. A checkpoint is written under another name
//! and renamed when it is on the disk: it is there as a whole or not at all.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{BufWriter, Read, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    Parameter, Parameters,
    optimizer::{AdamW, Scaling, States},
    transfer,
};

const PREFIX: &str = "checkpoint-";
const UNFINISHED: &str = "unfinished-checkpoint";
const MANIFEST: &str = "manifest.json";
const TENSORS: &str = "tensors.f32";
/// Raised when the layout changes: checkpoints of another format are not used.
const FORMAT: u32 = 1;

/// The checkpoints of one training run, in a folder of their own.
#[derive(Debug, Clone)]
pub struct Checkpoints {
    folder: PathBuf,
    keep: usize,
}

/// Where a run stands, beside its tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// Updates done.
    pub updates: u64,
    /// Threads that computed them. Sums are split by thread, so the run must go on with the same number.
    pub threads: usize,
    /// The kind of device that computed them: `cpu` or `cuda`.
    pub device: String,
    /// What the stage keeps, by file name.
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A checkpoint that was found whole.
#[derive(Debug)]
pub struct Checkpoint {
    /// Where the run stood.
    pub progress: Progress,
    folder: PathBuf,
    tensors: Vec<TensorShape>,
    states: States,
    scaling: Option<Scaling>,
}

/// What [`Checkpoints::latest`] found.
#[derive(Debug)]
pub struct Found {
    /// The latest checkpoint that is whole.
    pub checkpoint: Option<Checkpoint>,
    /// Names of later ones that were not, each with the reason. They are removed.
    pub damaged: Vec<(String, String)>,
}

/// Why a checkpoint could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// A file or folder could not be used.
    #[error("cannot {action} {}", .path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
    /// A tensor could not be copied.
    #[error("cannot copy the state of `{name}`")]
    Tensor {
        /// The parameter.
        name: String,
        /// Why it failed.
        source: Box<crate::Error>,
    },
    /// The manifest could not be written as JSON.
    #[error("cannot describe the checkpoint")]
    Manifest(#[from] serde_json::Error),
    /// The checkpoint holds other parameters than the model, or other states than the optimizer.
    #[error("the checkpoint {} is of another model or optimizer; remove it to start over", .folder.display())]
    OtherModel {
        /// The checkpoint.
        folder: PathBuf,
    },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    format: u32,
    updates: u64,
    threads: usize,
    device: String,
    tensors: Vec<TensorShape>,
    /// Not written for float32.
    #[serde(default, skip_serializing_if = "is_float32")]
    states: States,
    /// Only where the loss is scaled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    scaling: Option<Scaling>,
    /// BLAKE3 by file name.
    digests: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorShape {
    name: String,
    shape: Vec<i64>,
}

impl Checkpoints {
    /// The checkpoints in the existing folder `folder`, of which `keep` (at least one) are kept.
    pub fn new(folder: &Path, keep: usize) -> Self {
        Self { folder: folder.to_owned(), keep: keep.max(1) }
    }

    /// Saves a checkpoint, and removes the oldest beyond the limit.
    ///
    /// # Errors
    /// If it cannot be written. Those that were there before are then still there.
    pub fn save(&self, progress: &Progress, parameters: &Parameters, optimizer: &AdamW) -> Result<(), CheckpointError> {
        let unfinished = self.folder.join(UNFINISHED);
        remove(&unfinished)?;
        fs::create_dir(&unfinished).map_err(io("create", &unfinished))?;
        let mut digests = BTreeMap::new();
        digests.insert(TENSORS.to_owned(), write_tensors(&unfinished.join(TENSORS), parameters, optimizer)?);
        for (name, bytes) in &progress.files {
            digests.insert(name.clone(), write_file(&unfinished.join(name), bytes)?);
        }
        let manifest = Manifest {
            format: FORMAT,
            updates: progress.updates,
            threads: progress.threads,
            device: progress.device.clone(),
            tensors: shapes(parameters.list()),
            states: optimizer.states(),
            scaling: optimizer.scaling(),
            digests,
        };
        let digest = write_file(&unfinished.join(MANIFEST), &serde_json::to_vec_pretty(&manifest)?)?;
        sync_folder(&unfinished)?;
        let finished = self.folder.join(format!("{PREFIX}{:08}-{}", progress.updates, short(&digest)));
        remove(&finished)?;
        fs::rename(&unfinished, &finished).map_err(io("rename", &unfinished))?;
        sync_folder(&self.folder)?;
        let names = self.names()?;
        for name in names.iter().rev().skip(self.keep) {
            remove(&self.folder.join(name))?;
        }
        Ok(())
    }

    /// The latest checkpoint that is whole.
    ///
    /// # Errors
    /// If the folder cannot be listed, or a damaged checkpoint cannot be removed.
    pub fn latest(&self) -> Result<Found, CheckpointError> {
        let mut damaged = Vec::new();
        for name in self.names()?.into_iter().rev() {
            let folder = self.folder.join(&name);
            match open(&folder, &name) {
                Ok(checkpoint) => return Ok(Found { checkpoint: Some(checkpoint), damaged }),
                Err(reason) => {
                    remove(&folder)?;
                    damaged.push((name, reason));
                }
            }
        }
        Ok(Found { checkpoint: None, damaged })
    }

    /// Removes all checkpoints.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn clear(&self) -> Result<(), CheckpointError> {
        self.names()?.iter().try_for_each(|name| remove(&self.folder.join(name)))
    }

    /// Names of all checkpoints, the latest last.
    fn names(&self) -> Result<Vec<String>, CheckpointError> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.folder).map_err(io("list", &self.folder))? {
            let name = entry.map_err(io("list", &self.folder))?.file_name();
            if let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) {
                names.push(name.to_owned());
            }
        }
        let updates = |name: &String| name[PREFIX.len()..].split('-').next().and_then(|text| text.parse::<u64>().ok());
        names.sort_by_key(|name| (updates(name), name.clone()));
        Ok(names)
    }
}

impl Checkpoint {
    /// Puts the saved values into `parameters` and the saved states into `optimizer`.
    ///
    /// # Errors
    /// If they are of another model, or cannot be read.
    pub fn restore(&self, parameters: &mut Parameters, optimizer: &mut AdamW) -> Result<(), CheckpointError> {
        let same_optimizer =
            optimizer.states() == self.states && optimizer.scaling().is_some() == self.scaling.is_some();
        if shapes(parameters.list()) != self.tensors || !same_optimizer {
            return Err(CheckpointError::OtherModel { folder: self.folder.clone() });
        }
        let path = self.folder.join(TENSORS);
        let mut file = File::open(&path).map_err(io("open", &path))?;
        optimizer.restore(self.progress.updates, self.scaling);
        for index in 0..parameters.list().len() {
            let mut states =
                optimizer.states_of(parameters, index).map_err(copy_error(&parameters.list()[index].name))?;
            let parameter = &mut parameters.list_mut()[index];
            for value in std::iter::once(&mut parameter.value).chain(&mut states) {
                let read = |_, bytes: &mut [u8]| file.read_exact(bytes).map_err(io("read", &path));
                transfer::from_bytes(value, read, copy_error(&parameter.name))?;
            }
        }
        Ok(())
    }
}

/// Verifies everything but the tensors' fit to a model; says in words what is wrong.
fn open(folder: &Path, name: &str) -> Result<Checkpoint, String> {
    let read = |file: &str| fs::read(folder.join(file)).map_err(|error| format!("cannot read {file}: {error}"));
    let manifest = read(MANIFEST)?;
    if !name.ends_with(&format!("-{}", short(blake3::hash(&manifest).to_hex().as_str()))) {
        return Err(format!("{MANIFEST} was changed"));
    }
    let manifest: Manifest = serde_json::from_slice(&manifest).map_err(|error| format!("{MANIFEST}: {error}"))?;
    if manifest.format != FORMAT {
        return Err(format!("it has format {}, this program reads {FORMAT}", manifest.format));
    }
    let mut files = BTreeMap::new();
    for (file, digest) in &manifest.digests {
        let found = if file == TENSORS {
            let mut hasher = blake3::Hasher::new();
            let hashed = File::open(folder.join(file)).and_then(|mut file| hasher.update_reader(&mut file).map(|_| ()));
            hashed.map_err(|error| format!("cannot read {file}: {error}"))?;
            hasher.finalize()
        } else {
            let bytes = read(file)?;
            let found = blake3::hash(&bytes);
            files.insert(file.clone(), bytes);
            found
        };
        if found.to_hex().as_str() != digest {
            return Err(format!("{file} was changed"));
        }
    }
    let Manifest { updates, threads, device, tensors, states, scaling, .. } = manifest;
    let progress = Progress { updates, threads, device, files };
    Ok(Checkpoint { progress, folder: folder.to_owned(), tensors, states, scaling })
}

fn is_float32(states: &States) -> bool {
    *states == States::Float32
}

fn shapes(parameters: &[Parameter]) -> Vec<TensorShape> {
    let shape = |parameter: &Parameter| TensorShape { name: parameter.name.clone(), shape: parameter.size().to_vec() };
    parameters.iter().map(shape).collect()
}

/// Writes the tensors and returns the digest of their bytes.
fn write_tensors(path: &Path, parameters: &Parameters, optimizer: &AdamW) -> Result<String, CheckpointError> {
    let file = File::create(path).map_err(io("create", path))?;
    let mut writer = BufWriter::new(file);
    let mut hasher = blake3::Hasher::new();
    for (index, parameter) in parameters.list().iter().enumerate() {
        let states = optimizer.states_of(parameters, index).map_err(copy_error(&parameter.name))?;
        for value in std::iter::once(&parameter.value).chain(&states) {
            let write = |_, bytes: &[u8]| {
                hasher.update(bytes);
                writer.write_all(bytes).map_err(io("write", path))
            };
            transfer::to_bytes(value, write, copy_error(&parameter.name))?;
        }
    }
    let file = writer.into_inner().map_err(|error| error.into_error()).map_err(io("write", path))?;
    file.sync_all().map_err(io("write", path))?;
    Ok(hasher.finalize().to_hex().to_string())
}

fn copy_error(name: &str) -> impl Fn(crate::Error) -> CheckpointError {
    move |source| CheckpointError::Tensor { name: name.to_owned(), source: Box::new(source) }
}

fn write_file(path: &Path, bytes: &[u8]) -> Result<String, CheckpointError> {
    let mut file = File::create(path).map_err(io("create", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(io("write", path))?;
    Ok(blake3::hash(bytes).to_hex().to_string())
}

fn sync_folder(path: &Path) -> Result<(), CheckpointError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(io("flush", path))
}

fn remove(folder: &Path) -> Result<(), CheckpointError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(io("remove", folder)(error)),
        _ => Ok(()),
    }
}

fn short(digest: &str) -> &str {
    &digest[..digest.len().min(16)]
}

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> CheckpointError {
    let path = path.to_owned();
    move |source| CheckpointError::Io { action, path, source }
}
