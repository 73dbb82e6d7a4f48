//! The user's own files: their digests, without reading again what has not changed.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::SystemTime,
};

use pipe_stage::Digest;
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::{
    Entry, Home, Manifest,
    hash::hash_file,
    stamp::{Stamp, Stamps},
    tree::{Links, WalkError, walk},
};

/// How often a file that changes while it is read is read again.
const READINGS: usize = 3;
/// Names that differ more than this are no suggestion (0 to 1, by Jaro-Winkler).
const NEAR: f64 = 0.8;

/// What a user's file or folder is in a key: its content, and the last part of its path. Never the whole path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileIdentity {
    /// The last part of its path.
    pub name: String,
    /// Whether it is a folder.
    pub folder: bool,
    /// Of the bytes of a file; of the [`Manifest`] of a folder.
    pub digest: Digest,
}

/// Why a user's file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum UserFileError {
    /// It is not there.
    #[error("`{}` does not exist: there is no `{missing}` in `{}`{}", path.display(), within.display(), did_you_mean(near))]
    Missing {
        /// What was asked for.
        path: PathBuf,
        /// The first part of it that is missing.
        missing: String,
        /// The folder that does not have it.
        within: PathBuf,
        /// The name in that folder which is most like it.
        near: Option<String>,
    },
    /// The system refused to read it.
    #[error("cannot read `{}`", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A folder without any file.
    #[error("the folder `{}` holds no files", path.display())]
    Empty {
        /// The folder.
        path: PathBuf,
    },
    /// A pipe, a socket or a device.
    #[error("`{}` is neither a file nor a folder", path.display())]
    Special {
        /// The file.
        path: PathBuf,
    },
    /// A name that no artifact can have.
    #[error("{:?} has a name that cannot be kept: names are UTF-8", path)]
    Name {
        /// The file.
        path: PathBuf,
    },
    /// A link to a folder that it lies in.
    #[error("the link `{}` leads back to a folder that it lies in", path.display())]
    Loop {
        /// The link.
        path: PathBuf,
    },
    /// Somebody writes to it.
    #[error("`{}` changes while it is being read: wait until it is complete", path.display())]
    Changing {
        /// The file.
        path: PathBuf,
    },
}

/// Digests of the user's files, remembered in a home.
#[derive(Debug, Clone)]
pub struct UserFiles {
    home: Home,
}

impl UserFiles {
    /// Remembers in `home`, once that exists.
    pub fn new(home: &Home) -> Self {
        Self { home: home.clone() }
    }

    /// The files of a folder that [`UserFiles::identify`] gave this digest, if that is remembered. Only for saying what
    /// changed.
    pub fn folder(&self, digest: &Digest) -> Option<Manifest> {
        // A folder that was copied into the store is an artifact of the same digest.
        [self.manifest(digest), self.home.object(digest)].into_iter().find_map(|path| {
            let text = fs::read_to_string(path).ok()?;
            Manifest::parse(&text).ok().filter(|_| Digest::of(text.as_bytes()) == *digest)
        })
    }

    fn manifest(&self, digest: &Digest) -> PathBuf {
        self.home.root().join("manifests").join(digest.to_string())
    }

    /// Keeps the list of a folder's files, so that it can be said later which of them changed.
    fn remember(&self, text: &str, digest: &Digest) {
        let path = self.manifest(digest);
        if self.home.exists()
            && !path.exists()
            && let Err(error) = self.home.write_hint(&path, text.as_bytes())
        {
            tracing::debug!(%error, "cannot keep the list of a folder's files");
        }
    }

    /// The identity of the file or folder at an absolute path. Links are followed. Files that look as they did when
    /// they were last hashed (same inode, size and times) are not read.
    ///
    /// # Errors
    /// If it is missing or cannot be read, with the path to blame.
    pub fn identify(&self, path: &Path) -> Result<FileIdentity, UserFileError> {
        self.list(path).map(|(identity, _)| identity)
    }

    /// The same, with the files: those of a folder by their paths in it, a file by its name.
    ///
    /// # Errors
    /// If it is missing or cannot be read, with the path to blame.
    pub fn list(&self, path: &Path) -> Result<(FileIdentity, Manifest), UserFileError> {
        let metadata = fs::metadata(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => missing(path),
            _ => UserFileError::Io { path: path.to_owned(), source },
        })?;
        let folder = metadata.is_dir();
        if !folder && !metadata.is_file() {
            return Err(UserFileError::Special { path: path.to_owned() });
        }
        let kept = self.home.root().join("files").join(Digest::of(path.as_os_str().as_encoded_bytes()).to_string());
        let known = Stamps::load(&kept);
        let mut stamps = Stamps::default();
        let name = name_of(path);
        let (digest, files) = if folder {
            let files = folder_manifest(path, &known, &mut stamps)?;
            let text = files.to_text();
            let digest = Digest::of(text.as_bytes());
            self.remember(&text, &digest);
            (digest, files)
        } else {
            let seen = look(path, "", &known)?;
            seen.remember("", &mut stamps);
            (seen.digest, Manifest::new(vec![seen.entry(name.clone())]))
        };
        if stamps != known {
            stamps.save(&self.home, &kept);
        }
        Ok((FileIdentity { name, folder, digest }, files))
    }
}

fn folder_manifest(root: &Path, known: &Stamps, stamps: &mut Stamps) -> Result<Manifest, UserFileError> {
    let found = walk(root, Links::Follow).map_err(|error| walk_error(root, error))?;
    if found.is_empty() {
        return Err(UserFileError::Empty { path: root.to_owned() });
    }
    let seen: Vec<Seen> = found.par_iter().map(|file| look(&file.path, &file.name, known)).collect::<Result<_, _>>()?;
    let entry = |(file, seen): (super::tree::Found, Seen)| {
        seen.remember(&file.name, stamps);
        seen.entry(file.name)
    };
    let entries = found.into_iter().zip(seen).map(entry).collect();
    Ok(Manifest::new(entries))
}

/// A file that was looked at.
struct Seen {
    stamp: Stamp,
    digest: Digest,
    executable: bool,
    /// Whether every later write will show in the stamp.
    settled: bool,
}

impl Seen {
    fn entry(&self, path: String) -> Entry {
        Entry { path, digest: self.digest, size: self.stamp.size(), executable: self.executable }
    }

    fn remember(&self, name: &str, stamps: &mut Stamps) {
        if self.settled {
            stamps.insert(name.to_owned(), self.stamp, self.digest);
        }
    }
}

fn look(path: &Path, name: &str, known: &Stamps) -> Result<Seen, UserFileError> {
    let failed = |source| UserFileError::Io { path: path.to_owned(), source };
    let mut metadata = fs::metadata(path).map_err(failed)?;
    for _ in 0..READINGS {
        let stamp = Stamp::of(&metadata);
        let executable = metadata.mode() & 0o100 != 0;
        if let Some(digest) = known.find(name, stamp) {
            return Ok(Seen { stamp, digest, executable, settled: true });
        }
        let now = SystemTime::now();
        let digest = hash_file(path).map_err(failed)?;
        metadata = fs::metadata(path).map_err(failed)?;
        if Stamp::of(&metadata) == stamp {
            return Ok(Seen { stamp, digest, executable, settled: stamp.is_settled(now) });
        }
    }
    Err(UserFileError::Changing { path: path.to_owned() })
}

fn missing(path: &Path) -> UserFileError {
    let mut child = path;
    let mut within = path;
    for parent in path.ancestors().skip(1) {
        within = parent;
        if parent.exists() {
            break;
        }
        child = parent;
    }
    let missing = child.file_name().unwrap_or(child.as_os_str()).to_string_lossy().into_owned();
    let names =
        fs::read_dir(within).into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let near = names
        .map(|name| (strsim::jaro_winkler(&name, &missing), name))
        .filter(|(likeness, _)| *likeness >= NEAR)
        .max_by(|a, b| a.0.total_cmp(&b.0).then_with(|| b.1.cmp(&a.1)))
        .map(|(_, name)| name);
    UserFileError::Missing { path: path.to_owned(), missing, within: within.to_owned(), near }
}

fn did_you_mean(near: &Option<String>) -> String {
    near.as_ref().map_or_else(String::new, |near| format!("; did you mean `{near}`?"))
}

fn walk_error(root: &Path, error: WalkError) -> UserFileError {
    match error {
        WalkError::Io { path, source } => UserFileError::Io { path, source },
        WalkError::Loop(name) | WalkError::Link(name) => UserFileError::Loop { path: root.join(name) },
        WalkError::Special(name) => UserFileError::Special { path: root.join(name) },
        WalkError::Name(name) => UserFileError::Name { path: root.join(name) },
    }
}

fn name_of(path: &Path) -> String {
    let last = |path: &Path| path.file_name().map(|name| name.to_string_lossy().into_owned());
    // A path that ends in `..` has no last part of its own.
    last(path).or_else(|| last(&fs::canonicalize(path).ok()?)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
