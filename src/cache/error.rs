//! What can go wrong with a cache.

use std::{
    io,
    path::{Path, PathBuf},
};

use pipe_stage::{Digest, manifest::escape};

use super::Flaw;

/// A failure of the cache itself, or of what it was given.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// The system refused an operation.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried: "write", "create the folder".
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The home was written by a `pipe` with another layout.
    #[error(
        "the cache `{}` has layout {found}, this pipe knows layout {known}: use the pipe that made it, \
         or set PIPE_HOME to another folder",
        path.display()
    )]
    Layout {
        /// The home.
        path: PathBuf,
        /// What its `version` file says.
        found: String,
        /// What this program writes.
        known: u32,
    },
    /// A stage's output cannot be stored.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// Something is to be removed from a cache while somebody uses it.
    #[error("the cache `{}` is in use by {by}: wait until that has ended, or say --wait", path.display())]
    InUse {
        /// The home.
        path: PathBuf,
        /// Who uses it.
        by: String,
    },
    /// An artifact is not whole.
    #[error("the artifact {} cannot be used: {flaw}; run the pipeline to make it again", digest.short())]
    Artifact {
        /// The artifact.
        digest: Digest,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// The destination of a copy is taken.
    #[error(
        "`{}` exists already, and pipe did not write it: name another place, or overwrite it with `pipe get --force`",
        path.display()
    )]
    DestinationTaken {
        /// The destination.
        path: PathBuf,
    },
    /// The destination of a copy lies in the cache, or is all of the file system.
    #[error("`{}` is no place for a copy: name one outside of the cache", path.display())]
    DestinationForbidden {
        /// The destination.
        path: PathBuf,
    },
    /// A file is to be put where a folder is.
    #[error("`{}` is a folder, and the output is one file: name a file", path.display())]
    DestinationIsFolder {
        /// The destination.
        path: PathBuf,
    },
    /// The destination holds a copy that somebody changed.
    #[error(
        "`{}` was changed since pipe wrote it{files}: move the changes away, or overwrite them with \
         `pipe get --force`",
        path.display()
    )]
    DestinationEdited {
        /// The destination.
        path: PathBuf,
        /// Names of the files that would be lost in a folder, in brackets; nothing if it is one file.
        files: String,
    },
    /// An artifact that is no single file is to be used as one.
    #[error("the artifact {} holds {files} files: it cannot be put out as one file", digest.short())]
    NotOneFile {
        /// The artifact.
        digest: Digest,
        /// How many it holds.
        files: usize,
    },
}

impl CacheError {
    /// What to do about it, where the error does not say so itself.
    pub fn hint(&self) -> Option<&'static str> {
        let Self::Io { source, .. } = self else { return None };
        match source.kind() {
            _ if pipe_stage::is_full_disk(source) => Some(pipe_stage::FULL_DISK),
            io::ErrorKind::ReadOnlyFilesystem => {
                Some("a run writes to its cache: set PIPE_HOME to a folder that can be written")
            }
            io::ErrorKind::PermissionDenied => {
                Some("give yourself the right to it, or set PIPE_HOME to a folder of your own")
            }
            _ => None,
        }
    }
}

/// Why the folder that a stage wrote cannot become an artifact. The stage is to blame.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// There is no such folder.
    #[error("the output `{output}` is missing: the stage removed or replaced its folder")]
    Missing {
        /// The name of the folder.
        output: String,
    },
    /// There is nothing in it.
    #[error("the output `{output}` is empty: the stage ended without an error and wrote no file")]
    Empty {
        /// The name of the folder.
        output: String,
    },
    /// Links would point out of the artifact.
    #[error("the output file `{}` is a symbolic link: a stage must write files, or copy them", escape(path))]
    Link {
        /// Relative to the output.
        path: String,
    },
    /// Sockets, pipes and devices have no bytes to keep.
    #[error("the output file `{}` is neither a file nor a folder", escape(path))]
    Special {
        /// Relative to the output.
        path: String,
    },
    /// The name could not be stored or shown.
    #[error("the output file {path:?} has a name that cannot be stored: names are UTF-8")]
    Name {
        /// Relative to the output.
        path: String,
    },
}

/// Turns an [`io::Error`] into a [`CacheError`] that says what was tried on which path.
pub(super) trait Trying<T> {
    fn trying(self, action: &'static str, path: &Path) -> Result<T, CacheError>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, action: &'static str, path: &Path) -> Result<T, CacheError> {
        self.map_err(|source| CacheError::Io { action, path: path.to_owned(), source })
    }
}
