//! Why a pipeline could not be loaded.

use std::{path::PathBuf, sync::Arc};

use pipe_yaml::Problem;
use serde_json::{Value, json};

use super::Source;

/// Why a pipeline could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// There is no such file.
    #[error("{}: there is no such file", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The path is a directory.
    #[error("{}: this is a directory; name the pipeline file in it", path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("{}: cannot read the pipeline file: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is larger than any pipeline.
    #[error(
        "{}: {bytes} bytes are too many for a pipeline file, which may have {}; keep data in files of its own",
        path.display(),
        pipe_yaml::MAX_BYTES
    )]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The text is not a valid pipeline. [`render`](super::render) shows where.
    #[error("{}: {}", given.path().display(), count(problems.len()))]
    Invalid {
        /// The text.
        given: Arc<Source>,
        /// Everything that is wrong with it, in the order of the text.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The error of a text with problems, in whatever order they were found.
    pub fn invalid(given: Arc<Source>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.map_or((0, 0), |span| (span.start, span.end)));
        problems.dedup();
        Self::Invalid { given, problems }
    }

    /// A list of objects with `file`, `line` and `column` (both from 1, columns in characters; null where there is no
    /// place), `message` and `help` (or null).
    pub fn to_json(&self) -> Value {
        match self {
            Self::Invalid { given, problems } => problems
                .iter()
                .map(|problem| {
                    let place = problem.span.map(|span| given.locate(span));
                    json!({
                        "file": place.as_ref().map_or_else(|| given.path().display().to_string(), |place| place.origin.clone()),
                        "line": place.as_ref().map(|place| place.line),
                        "column": place.as_ref().map(|place| place.column),
                        "message": problem.message,
                        "help": problem.help,
                    })
                })
                .collect(),
            Self::Missing { path } | Self::Directory { path } | Self::Read { path, .. } | Self::TooLarge { path, .. } => {
                let file = path.display().to_string();
                let message = self.to_string();
                let message = message.strip_prefix(&format!("{file}: ")).unwrap_or(&message);
                json!([{ "file": file, "line": null, "column": null, "message": message, "help": null }])
            }
        }
    }
}

/// `1 problem`, `2 problems`.
pub(super) fn count(problems: usize) -> String {
    format!("{problems} problem{}", if problems == 1 { "" } else { "s" })
}
