//! The content store: artifacts by digest.

mod check;
mod ingest;

use std::{
    fmt, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pipe_stage::{Digest, manifest::escape};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use ingest::Prepared;

use check::Check;

use super::{
    CacheError, Entry, Home, Manifest,
    checkout::copy_file,
    error::Trying,
    stamp::{Stamp, Stamps},
};

/// Artifacts of at most this size and so many files are hashed whenever they are looked at: to read what would be known
/// of them takes as long.
const SMALL_BYTES: u64 = 64 << 10;
const SMALL_FILES: usize = 16;

/// The artifacts of a home. Takes folders in, and gives them out only after looking at every file.
#[derive(Debug, Clone)]
pub struct Store {
    home: Home,
}

/// What is wrong with a stored artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "flaw", rename_all = "snake_case")]
pub enum Flaw {
    /// An object is gone.
    Missing {
        /// The file; `None` for the manifest.
        file: Option<String>,
    },
    /// An object's bytes are not what they were.
    Damaged {
        /// The file; `None` for the manifest.
        file: Option<String>,
        /// How that shows.
        why: String,
    },
}

impl Store {
    /// The store of `home`.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// Looks whether an artifact is whole and gives the list of its files. Every file whose inode changed since it was
    /// last hashed is hashed. Objects that are damaged are moved to the quarantine.
    ///
    /// # Errors
    /// The first flaw, in the order of the files.
    pub fn verify(&self, artifact: &Digest) -> Result<Manifest, Flaw> {
        let manifest = self.manifest(artifact)?;
        let verified = self.home.verified(artifact);
        let known = if is_small(&manifest) { Stamps::default() } else { Stamps::load(&verified) };
        let check = |entry| self.check(entry, &known);
        let checks: Vec<Check> = match manifest.entries() {
            // Not worth waking other threads up for.
            [only] => vec![check(only)],
            several => several.par_iter().map(check).collect(),
        };
        if !is_small(&manifest) && checks.iter().any(|check| check.hashed) {
            let mut stamps = Stamps::default();
            for (entry, check) in manifest.entries().iter().zip(&checks) {
                if let (Ok(()), Some(stamp)) = (&check.result, check.stamp) {
                    stamps.insert(entry.path.clone(), stamp, entry.digest);
                }
            }
            stamps.save(&self.home, &verified);
        }
        checks.into_iter().try_for_each(|check| check.result)?;
        Ok(manifest)
    }

    /// How the objects of an artifact looked when they were last hashed, its list of files among them; those of a small
    /// one are hashed for that. `None` if it is not whole, or a change could go unnoticed because it is too new.
    pub(super) fn looks(&self, artifact: &Digest) -> Option<Vec<(Digest, Stamp)>> {
        let stamp = Stamp::of(&fs::symlink_metadata(self.home.object(artifact)).ok()?);
        let settled = stamp.is_settled(SystemTime::now());
        // Reads and hashes the list.
        let manifest = self.manifest(artifact).ok().filter(|_| settled)?;
        let small = is_small(&manifest);
        let known = if small { Stamps::default() } else { Stamps::load(&self.home.verified(artifact)) };
        let look = |entry: &Entry| {
            if small {
                let check = self.check(entry, &known);
                check.result.ok().and(check.stamp)
            } else {
                known.get(&entry.path)
            }
        };
        let files = manifest.entries().iter().map(|entry| look(entry).map(|stamp| (entry.digest, stamp)));
        std::iter::once(Some((*artifact, stamp))).chain(files).collect()
    }

    /// Makes `folder`, which must not exist, a view of an artifact: folders of links to its objects. For workers, who
    /// only read.
    ///
    /// # Errors
    /// If the artifact is not whole, or the folder cannot be written.
    pub fn materialise(&self, artifact: &Digest, folder: &Path) -> Result<(), CacheError> {
        let manifest = self.verified(artifact)?;
        fs::create_dir_all(folder).trying("create the folder", folder)?;
        for entry in manifest.entries() {
            let path = make_place(folder, entry)?;
            if entry.executable {
                copy_file(&self.home.object(&entry.digest), &path, 0o555)?;
            } else {
                symlink(self.home.object(&entry.digest), &path).trying("create", &path)?;
            }
        }
        Ok(())
    }

    pub(super) fn home(&self) -> &Home {
        &self.home
    }

    /// Where the bytes of an object are. For those who hash what they read: it is not looked at.
    pub(crate) fn object(&self, object: &Digest) -> PathBuf {
        self.home.object(object)
    }

    /// The files of an artifact that is whole.
    pub(super) fn verified(&self, artifact: &Digest) -> Result<Manifest, CacheError> {
        self.verify(artifact).map_err(|flaw| CacheError::Artifact { digest: *artifact, flaw })
    }
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, flaw) = match self {
            Self::Missing { file } => (file, "is missing from the cache".to_owned()),
            Self::Damaged { file, why } => (file, format!("is damaged in the cache ({why})")),
        };
        match file {
            Some(file) => write!(f, "its file `{}` {flaw}", escape(file)),
            None => write!(f, "the list of its files {flaw}"),
        }
    }
}

fn is_small(manifest: &Manifest) -> bool {
    manifest.total_bytes() <= SMALL_BYTES && manifest.entries().len() <= SMALL_FILES
}

/// The path of an entry below `folder`, which is there; its parents are created.
fn make_place(folder: &Path, entry: &Entry) -> Result<PathBuf, CacheError> {
    let path = folder.join(&entry.path);
    if let Some(parent) = path.parent().filter(|parent| *parent != folder) {
        fs::create_dir_all(parent).trying("create the folder", parent)?;
    }
    Ok(path)
}

#[cfg(test)]
mod tests;
