//! Walking folders: a stage's output, where links have no place, and the user's folders, where they are followed.

use std::{
    fs::{self, FileType, Metadata},
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use pipe_stage::manifest::is_storable;

/// A file that a walk found.
#[derive(Debug)]
pub(super) struct Found {
    /// Relative to the folder of the walk, storable in a manifest.
    pub(super) name: String,
    /// Where it is.
    pub(super) path: PathBuf,
}

/// What a walk does on meeting a symbolic link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    Refuse,
    Follow,
}

/// Why a folder cannot be walked. Paths within the folder are relative to it.
#[derive(Debug)]
pub(super) enum WalkError {
    Io { path: PathBuf, source: io::Error },
    Link(String),
    Loop(String),
    Special(String),
    Name(String),
}

/// The files below `root`, which is a folder, in no particular order.
pub(super) fn walk(root: &Path, links: Links) -> Result<Vec<Found>, WalkError> {
    let mut found = Vec::new();
    // Folders to read, each with the identities of the folders that it lies in: a link to one of them is a loop.
    let mut folders = vec![(root.to_owned(), String::new(), vec![identity(&stat(root)?)])];
    while let Some((folder, prefix, parents)) = folders.pop() {
        let failed = |source| WalkError::Io { path: folder.clone(), source };
        for entry in fs::read_dir(&folder).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_name().to_str().is_none() || !is_storable(&name) {
                return Err(WalkError::Name(name));
            }
            let path = entry.path();
            let mut file_type = entry.file_type().map_err(failed)?;
            if file_type.is_symlink() {
                if links == Links::Refuse {
                    return Err(WalkError::Link(name));
                }
                file_type = target_type(&path)?;
            }
            if file_type.is_dir() {
                let mut parents = parents.clone();
                if links == Links::Follow {
                    let identity = identity(&stat(&path)?);
                    if parents.contains(&identity) {
                        return Err(WalkError::Loop(name));
                    }
                    parents.push(identity);
                }
                folders.push((path, name + "/", parents));
            } else if file_type.is_file() {
                found.push(Found { name, path });
            } else {
                return Err(WalkError::Special(name));
            }
        }
    }
    Ok(found)
}

fn target_type(link: &Path) -> Result<FileType, WalkError> {
    Ok(stat(link)?.file_type())
}

fn stat(path: &Path) -> Result<Metadata, WalkError> {
    fs::metadata(path).map_err(|source| WalkError::Io { path: path.to_owned(), source })
}

fn identity(metadata: &Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}
