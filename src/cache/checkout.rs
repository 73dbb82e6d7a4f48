//! Putting copies of artifacts where the user wants them.
//!
//! A copy is never tied to the cache: where the file system can share the bytes of two files until one is written to,
//! it does (a reflink), else they are copied. A hard link would be cheaper still, but to edit it would be to edit the
//! object, so there are none.
//!
//! What was written where is noted in the home, so that a later copy to the same place can replace what it wrote
//! itself, and nothing else: a file that somebody edited, or that was there before, is left alone until the caller says
//! that it may go. New folders and files appear all at once. A folder that is there already is changed file by file,
//! each at once, after all that is new has been written beside it.

mod copy;
mod inspect;
mod written;

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use pipe_stage::{Digest, Form};
use rayon::prelude::*;
use tempfile::TempDir;

use self::{
    inspect::{Situation, inspect},
    written::Place,
};
use super::{
    CacheError, Entry, Manifest, Store,
    atomic::{self, rename_to_free},
    crash,
    error::Trying,
};

pub(super) use self::copy::copy_file;

/// How an artifact is put somewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Checkout {
    /// As a folder; or as a file, if it holds just one.
    pub form: Form,
    /// Whether files may be overwritten that somebody edited, or that were there before.
    pub force: bool,
}

/// What was done to put an artifact somewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct CheckedOut {
    /// The artifact's files.
    pub files: usize,
    /// Their size together, in bytes.
    pub bytes: u64,
    /// How many of them were written; the others were there.
    pub written: usize,
    /// How many files of what was there before were removed.
    pub removed: usize,
}

/// A file that is to be at a place.
struct Target<'a> {
    /// Relative to the place; empty if the place itself is the file.
    name: &'a str,
    path: PathBuf,
    entry: &'a Entry,
}

impl Store {
    /// Makes `path` a copy of an artifact. See [`Checkout`] and the top of this file for what may be there before.
    ///
    /// # Errors
    /// If the artifact is not whole, `path` holds what is not to be overwritten, or the disk refuses. What was at
    /// `path` is then as it was, unless the disk refuses while names are being changed; doing it again ends it well.
    pub fn checkout_to(&self, artifact: &Digest, path: &Path, options: Checkout) -> Result<CheckedOut, CacheError> {
        let path = real(path)?;
        let home = self.home();
        let root = fs::canonicalize(home.root()).unwrap_or_else(|_| home.root().to_owned());
        if path.parent().is_none() || path.starts_with(root) {
            return Err(CacheError::DestinationForbidden { path });
        }
        let place = Place::lock(home, &path)?;
        if let Some(done) = place.is_untouched(artifact, options.form) {
            return Ok(done);
        }
        let manifest = self.verified(artifact)?;
        let targets = targets(&manifest, artifact, &path, options.form)?;
        let situation = inspect(&path, &targets, &place, options)?;
        let mut done = CheckedOut { files: targets.len(), bytes: manifest.total_bytes(), ..CheckedOut::default() };
        match situation {
            Situation::Free => {
                self.write_new(&path, &targets, options.form)?;
                done.written = targets.len();
            }
            Situation::Taken(changes) => {
                if !changes.write.is_empty() || !changes.remove.is_empty() {
                    place.intend(artifact, &targets);
                    self.change(&path, &targets, &changes)?;
                }
                (done.written, done.removed) = (changes.write.len(), changes.remove.len());
            }
        }
        place.note(artifact, &targets);
        Ok(done)
    }

    /// Writes a folder or file that is not there, or an empty folder, all at once.
    fn write_new(&self, path: &Path, targets: &[Target<'_>], form: Form) -> Result<(), CacheError> {
        let beside = self.beside(path)?;
        let copy = beside.path().join("copy");
        let staged = |target: &Target<'_>| if form == Form::File { copy.clone() } else { copy.join(target.name) };
        let written = targets.par_iter().map(|target| {
            let staged = staged(target);
            create_parent(&staged)?;
            self.write_copy(target.entry, &staged).map(|()| staged)
        });
        sync_all(&written.collect::<Result<Vec<_>, _>>()?)?;
        crash::point("checkout.staged");
        let renamed = match form {
            // An empty folder may be in the way.
            Form::Folder => fs::rename(&copy, path),
            Form::File => rename_to_free(&copy, path),
        };
        renamed.trying("write", path)
    }

    /// Changes the files of a folder, or replaces a file, one after another.
    fn change(&self, path: &Path, targets: &[Target<'_>], changes: &inspect::Changes) -> Result<(), CacheError> {
        let beside = self.beside(path)?;
        let staged = |index: usize| beside.path().join(index.to_string());
        let written = changes.write.par_iter().map(|&index| {
            let staged = staged(index);
            self.write_copy(targets[index].entry, &staged).map(|()| staged)
        });
        sync_all(&written.collect::<Result<Vec<_>, _>>()?)?;
        crash::point("checkout.staged");
        for obstacle in &changes.clear {
            let removed = if obstacle.is_dir() && !obstacle.is_symlink() {
                fs::remove_dir_all(obstacle)
            } else {
                fs::remove_file(obstacle)
            };
            removed.trying("remove", obstacle)?;
        }
        for &index in &changes.write {
            let target = &targets[index].path;
            create_parent(target)?;
            fs::rename(staged(index), target).trying("write", target)?;
            crash::point("checkout.half");
        }
        for old in &changes.remove {
            match fs::remove_file(old) {
                Err(error) if !is_gone(&error) => return Err(error).trying("remove", old),
                _ => remove_empty_parents(old, path),
            }
        }
        Ok(())
    }

    /// A temporary folder in the file system of `path`. What a killed process left of the kind goes.
    fn beside(&self, path: &Path) -> Result<TempDir, CacheError> {
        let parent = path.parent().unwrap_or(path);
        fs::create_dir_all(parent).trying("create the folder", parent)?;
        let name = [self.home().root().as_os_str().as_encoded_bytes(), b"\0", path.as_os_str().as_encoded_bytes()];
        let prefix = format!(".pipe-get-{}-", Digest::of(&name.concat()).short());
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().as_encoded_bytes().starts_with(prefix.as_bytes()) {
                // Nobody else writes to this place: its lock is ours.
                let _ = fs::remove_dir_all(entry.path());
            }
        }
        tempfile::Builder::new().prefix(&prefix).tempdir_in(parent).trying("write in", parent)
    }

    fn write_copy(&self, entry: &Entry, path: &Path) -> Result<(), CacheError> {
        copy_file(&self.home().object(&entry.digest), path, if entry.executable { 0o777 } else { 0o666 })
    }
}

/// What was copied is sure to be whole before it gets its name: a power cut must not leave an empty file that looks as if
/// somebody had edited it.
fn sync_all(copies: &[PathBuf]) -> Result<(), CacheError> {
    atomic::sync(&copies.iter().map(PathBuf::as_path).collect::<Vec<_>>())
}

/// The path without links and `..` on the way to its last part, which may be a link, or not be there.
fn real(path: &Path) -> Result<PathBuf, CacheError> {
    let absolute = std::path::absolute(path).trying("find", path)?;
    // Without a slash at the end, which would make a name of a file one of a folder.
    let absolute: PathBuf = absolute.components().collect();
    let Some(name) = absolute.file_name() else { return fs::canonicalize(&absolute).trying("find", &absolute) };
    let mut missing = vec![name];
    let mut there = absolute.parent();
    while let Some(folder) = there {
        match fs::canonicalize(folder) {
            Ok(real) => return Ok(missing.into_iter().rev().fold(real, |path, name| path.join(name))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).trying("find", folder),
        }
        // What is not there has nothing beside it.
        missing.push(
            folder.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound)).trying("find", &absolute)?,
        );
        there = folder.parent();
    }
    Err(io::Error::from(io::ErrorKind::NotFound)).trying("find", &absolute)
}

fn targets<'a>(
    manifest: &'a Manifest,
    artifact: &Digest,
    path: &Path,
    form: Form,
) -> Result<Vec<Target<'a>>, CacheError> {
    match (form, manifest.entries()) {
        (Form::Folder, entries) => {
            let target = |entry: &'a Entry| Target { name: &entry.path, path: path.join(&entry.path), entry };
            Ok(entries.iter().map(target).collect())
        }
        (Form::File, [entry]) => Ok(vec![Target { name: "", path: path.to_owned(), entry }]),
        (Form::File, entries) => Err(CacheError::NotOneFile { digest: *artifact, files: entries.len() }),
    }
}

fn create_parent(path: &Path) -> Result<(), CacheError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).trying("create the folder", parent)
}

/// Removes the folders above `path`, below `root`, in which nothing is left.
fn remove_empty_parents(path: &Path, root: &Path) {
    for parent in path.ancestors().skip(1).take_while(|parent| parent.starts_with(root) && *parent != root) {
        if fs::remove_dir(parent).is_err() {
            return;
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

#[cfg(test)]
mod tests;
