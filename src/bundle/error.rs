//! What is wrong with a bundle.

use std::{fmt, io};

/// Why a bundle is refused. Which bundle it is, the caller knows.
#[derive(Debug, thiserror::Error)]
pub enum BundleError {
    /// The system cannot read it.
    #[error("it cannot be read")]
    Read(#[source] io::Error),
    /// It is not zstd, or damaged, or wants too much memory.
    #[error("it is not a bundle, or it is damaged: it cannot be decompressed")]
    Compression(#[source] io::Error),
    /// It ends in the middle.
    #[error("it is cut off: it ends in the middle of {within}")]
    Cut {
        /// What was being read.
        within: String,
    },
    /// It is an archive of something else.
    #[error("it is not a bundle of pipe: its first entry is not a `manifest`")]
    Foreign,
    /// It was written by a `pipe` with another format.
    #[error("it has the format `{found}`, this pipe reads `{known}`: use the pipe that wrote it")]
    Format {
        /// The first line of its manifest.
        found: String,
        /// The first line of a manifest that this program writes.
        known: &'static str,
    },
    /// A line of the manifest is not as `pipe` writes them.
    #[error("line {line} of its manifest is not what pipe writes")]
    Line {
        /// Counted from 1.
        line: usize,
    },
    /// A path of the manifest cannot be trusted.
    #[error("its entry {path:?} {problem}")]
    Path {
        /// The path.
        path: String,
        /// Why not.
        problem: PathProblem,
    },
    /// It asks for too much.
    #[error("it asks for {found} {what}, and at most {limit} are taken")]
    Limit {
        /// `entries`, `bytes of manifest`, `bytes when unpacked`.
        what: &'static str,
        /// How much.
        found: u64,
        /// How much is taken at most.
        limit: u64,
    },
    /// The archive does not hold what the manifest says.
    #[error("it does not hold what its manifest promises: instead of {expected} there is {found}")]
    Unexpected {
        /// The entry that the manifest lists, or the end.
        expected: String,
        /// What is there.
        found: String,
    },
    /// Bytes that the manifest does not promise.
    #[error("`{path}` is not what its manifest promises: its bytes have another digest")]
    Digest {
        /// The entry.
        path: String,
    },
    /// Something stands behind the end.
    #[error("something stands behind its end")]
    Trailing,
    /// An entry cannot be put where it belongs.
    #[error("`{path}` cannot be unpacked")]
    Unpack {
        /// The entry.
        path: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// What is to be written is not what was announced: it changes while it is read.
    #[error("`{path}` changed while the bundle was written: do it again when nothing writes to it")]
    Changed {
        /// The entry.
        path: String,
    },
    /// The bundle cannot be written.
    #[error("the bundle cannot be written")]
    Write(#[source] io::Error),
}

/// Why a path cannot stand in a bundle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PathProblem {
    /// It begins with `/`.
    Absolute,
    /// A part of it is empty, `.` or `..`.
    Parts,
    /// It holds control characters, or ones that change the direction of text.
    Characters,
    /// It, or a part of it, is too long.
    Long,
    /// Nothing of this name is in a bundle.
    Unknown,
    /// The name of an object is not the digest of its bytes.
    Object,
    /// Where letters of either case are the same, it is the same as another, or a folder of this name is needed too.
    Collides {
        /// The other.
        with: String,
    },
}

impl fmt::Display for PathProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Absolute => "has an absolute path",
            Self::Parts => "has a path with an empty part, `.` or `..`",
            Self::Characters => "has a name with control characters",
            Self::Long => "has a path that is too long",
            Self::Unknown => "is nothing that belongs into a bundle",
            Self::Object => "is named by another digest than its own",
            Self::Collides { with } => {
                return write!(f, "would be the same file as {with:?} where upper and lower case are the same");
            }
        })
    }
}
