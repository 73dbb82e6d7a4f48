//! Sources: what may stand in the field `source`.

use std::{path::PathBuf, str::FromStr};

pub use pipe_fetch::SourceError;

/// Where something comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `file://PATH`: a file or folder of this machine. The path is taken as it stands, without percent-decoding; it is
    /// absolute, or relative to the pipeline's folder.
    File(PathBuf),
    /// A source on a network.
    Remote(pipe_fetch::Source),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        match text.split_once("://") {
            None => Err(error(
                format!("`{text}` has no scheme"),
                format!("write `file://{text}` for a file or folder of this machine, `hf://{text}` for a repository"),
            )),
            Some(("file", path)) => file(path),
            Some(_) => text.parse().map(Self::Remote),
        }
    }
}

fn error(message: impl Into<String>, help: impl Into<String>) -> SourceError {
    SourceError::new(message, help)
}

fn file(path: &str) -> Result<Source, SourceError> {
    if path.is_empty() {
        return Err(error("`file://` names no file", "write the path behind it: `file://data/chat.jsonl`"));
    }
    if path == "~" || path.starts_with("~/") {
        return Err(error(
            format!("`{path}`: only a shell knows what `~` is"),
            "write the path from `/` on, or relative to the pipeline's folder",
        ));
    }
    if path.contains('\0') {
        return Err(error("a path cannot hold a NUL character", "remove it"));
    }
    Ok(Source::File(PathBuf::from(path)))
}
