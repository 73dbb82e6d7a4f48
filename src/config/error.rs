//! Why a pipeline could not be loaded, and how that is shown.

use std::{path::PathBuf, sync::Arc};

use pipe_yaml::Problem;

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
    #[error("{}: cannot read the pipeline file", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any pipeline.
    #[error("{}: {bytes} bytes are too many for a pipeline file; the limit is {}", path.display(), pipe_yaml::MAX_BYTES)]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
    },
    /// The file holds bytes that are not UTF-8.
    #[error("{}:{line}:{column}: the file is not UTF-8 text", path.display())]
    NotUtf8 {
        /// The file.
        path: PathBuf,
        /// Line of the first bad byte, from 1.
        line: usize,
        /// Its column, from 1, in characters.
        column: usize,
    },
    /// The text is not a valid pipeline.
    #[error("{}: {} problem{}", source_text.path().display(), problems.len(), if problems.len() == 1 { "" } else { "s" })]
    Invalid {
        /// The text.
        source_text: Arc<Source>,
        /// Everything that is wrong with it, in the order of the text.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The error of a text with problems.
    pub fn invalid(source: Arc<Source>, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| problem.span.map_or((0, 0), |span| (span.start, span.end)));
        problems.dedup();
        Self::Invalid { source_text: source, problems }
    }
}
