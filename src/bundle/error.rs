//! What is wrong with a bundle, and with a run that should become one.

use std::{fmt, io, path::PathBuf};

use pipe_stage::Digest;

use crate::{
    cache::{CacheError, Flaw, UserFileError},
    config::ConfigError,
    runs::{RunId, RunStatus},
};

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
    /// The disk has no room for it.
    #[error("it needs {needs} bytes unpacked, and {free} are free")]
    Room {
        /// In bytes.
        needs: u64,
        /// In bytes.
        free: u64,
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
    /// Something that every bundle has, or this one says it has, is not in it.
    #[error("it lacks `{path}`")]
    Lacks {
        /// The entry.
        path: String,
    },
    /// What it tells of the run makes no sense.
    #[error("its `experiment.json` is not what pipe writes")]
    Experiment(#[source] io::Error),
    /// The list of the files of an artifact is none.
    #[error("`{path}` is not the list of an artifact's files")]
    List {
        /// The entry.
        path: String,
    },
    /// Its pipeline has more than a resolved one has.
    #[error("its pipeline is not a resolved one: it has a field `{field}`")]
    Unresolved {
        /// The field.
        field: String,
    },
    /// Its pipeline names a file that is not in it.
    #[error("its pipeline names `{}`, which is not in the bundle (`{field}` of the stage `{stage}`)", path.display())]
    Outside {
        /// The stage.
        stage: String,
        /// The field.
        field: String,
        /// The file.
        path: PathBuf,
    },
    /// Its pipeline is none for this program.
    #[error("its pipeline is not valid")]
    Pipeline(#[from] ConfigError),
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

/// Why a run cannot be shared.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// It did not finish.
    #[error("the run {run} {}", ended(*status))]
    Unfinished {
        /// The run.
        run: RunId,
        /// How it ended.
        status: RunStatus,
    },
    /// It has no such stage.
    #[error("the run {run} has no stage `{stage}`")]
    UnknownStage {
        /// The run.
        run: RunId,
        /// What was asked for.
        stage: String,
        /// The stages that it has.
        known: Vec<String>,
    },
    /// Its pipeline cannot be told any more.
    #[error("the resolved pipeline of the run {run} is gone from the cache, or damaged")]
    PipelineGone {
        /// The run.
        run: RunId,
    },
    /// Its pipeline is none for this program.
    #[error(transparent)]
    Pipeline(#[from] ConfigError),
    /// A file of the user's cannot be read.
    #[error("the file `{field}` of the stage `{stage}` is not there to be shared")]
    UserFile {
        /// The stage.
        stage: String,
        /// The field that names it.
        field: String,
        /// Why not.
        #[source]
        source: Box<UserFileError>,
    },
    /// A file of the user's is another now.
    #[error("`{}` is not what the run used any more (`{field}` of the stage `{stage}`)", path.display())]
    FileChanged {
        /// The stage.
        stage: String,
        /// The field that names it.
        field: String,
        /// The file.
        path: PathBuf,
    },
    /// An artifact is gone or damaged.
    #[error("the artifact `{artifact}` ({}) cannot be shared: {flaw}", digest.short())]
    Artifact {
        /// Stage and output.
        artifact: String,
        /// Its digest.
        digest: Digest,
        /// What is wrong with it.
        flaw: Flaw,
    },
    /// A file holds the value of a variable.
    #[error("`{path}` holds the value of the environment variable `{variable}`")]
    Secret {
        /// The entry of the bundle.
        path: String,
        /// The variable.
        variable: String,
    },
    /// A file may hold the value of a variable, which is not known here.
    #[error(
        "the artifact of `{stage}` may hold the value of the environment variable `{variable}`, which is not set to that \
         value here, so that it cannot be looked for"
    )]
    SecretUnknown {
        /// The stage.
        stage: String,
        /// The variable.
        variable: String,
    },
    /// A file cannot be read.
    #[error("cannot read `{}`", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// It cannot be written as a bundle.
    #[error(transparent)]
    Bundle(#[from] BundleError),
}

impl ShareError {
    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        Some(match self {
            Self::Unfinished { status: RunStatus::Running, .. } => "wait until it has ended".to_owned(),
            Self::Unfinished { .. } => {
                "run the pipeline to its end and share that run, or share what there is with --partial".to_owned()
            }
            Self::UnknownStage { known, .. } => format!("it has {}", known.join(", ")),
            Self::PipelineGone { .. } => "run the pipeline again, and share that run".to_owned(),
            Self::UserFile { .. } | Self::FileChanged { .. } => {
                "bring the file back as it was; or run the pipeline with what it is now, and share that run".to_owned()
            }
            Self::Artifact { .. } => "run the pipeline: it makes the artifact again".to_owned(),
            Self::Secret { variable, .. } => format!(
                "a bundle never holds one: leave the file out, or, if the value is no secret, say so with --not-secret \
                 {variable}"
            ),
            Self::SecretUnknown { variable, .. } => {
                format!("set `{variable}` as it was, or, if it is no secret, say so with --not-secret {variable}")
            }
            Self::Bundle(BundleError::Path { .. }) => {
                "a bundle can be unpacked on every system: rename the file, and run the pipeline again".to_owned()
            }
            Self::Pipeline(_) | Self::Read { .. } | Self::Cache(_) | Self::Bundle(_) => return None,
        })
    }
}

fn ended(status: RunStatus) -> &'static str {
    match status {
        RunStatus::Running => "still goes on",
        RunStatus::Done => "is done",
        RunStatus::Failed => "failed",
        RunStatus::Cancelled => "was stopped before its end",
        RunStatus::Killed => "was killed before its end",
    }
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
