//! Sources: what may stand in the field `source`.

use std::{path::PathBuf, str::FromStr};

/// Where something comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `file://PATH`: a file or folder of this machine. The path is taken as it stands, without percent-decoding; it is
    /// absolute, or relative to the pipeline's folder.
    File(PathBuf),
    /// A source on a network.
    Remote {
        /// `hf`, `ms`, `https` or `s3`.
        scheme: &'static str,
        /// What stands behind `://`.
        location: String,
    },
}

/// Text that is no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct SourceError {
    /// What is wrong.
    pub message: String,
    /// What would be right.
    pub help: String,
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let Some((scheme, location)) = text.split_once("://") else {
            return Err(error(
                format!("`{text}` has no scheme"),
                format!("write `file://{text}` for a file or folder of this machine"),
            ));
        };
        let remote = |scheme, valid: bool, example: &str| {
            if valid {
                Ok(Self::Remote { scheme, location: location.to_owned() })
            } else {
                Err(error(format!("`{text}` is not a valid {scheme}:// source"), format!("write it as `{example}`")))
            }
        };
        match scheme {
            "file" => file(location),
            "hf" => remote("hf", is_repository(location), "hf://OWNER/NAME, or hf://OWNER/NAME@REVISION"),
            "ms" => remote("ms", is_repository(location), "ms://OWNER/NAME, or ms://OWNER/NAME@REVISION"),
            "https" => remote("https", has_two_parts(location), "https://HOST/PATH"),
            "s3" => remote("s3", has_two_parts(location), "s3://BUCKET/KEY"),
            "http" => Err(error("`http` is not supported: nothing protects what it brings", "write `https://`")),
            _ => Err(error(
                format!("`{scheme}` is not a known scheme"),
                "the schemes are file://, hf://, ms://, https:// and s3://",
            )),
        }
    }
}

fn error(message: impl Into<String>, help: impl Into<String>) -> SourceError {
    SourceError { message: message.into(), help: help.into() }
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

/// `OWNER/NAME`, with `datasets/` before it or `@REVISION` behind it where wanted.
fn is_repository(location: &str) -> bool {
    let location = location.strip_prefix("datasets/").unwrap_or(location);
    let (repository, revision) = match location.split_once('@') {
        Some((repository, revision)) => (repository, Some(revision)),
        None => (location, None),
    };
    let is_name = |name: &str| {
        name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
    };
    let is_revision = |name: &str| !name.is_empty() && name.split('/').all(is_name);
    repository.split_once('/').is_some_and(|(owner, name)| is_name(owner) && is_name(name))
        && revision.is_none_or(is_revision)
}

fn has_two_parts(location: &str) -> bool {
    !location.contains(char::is_whitespace)
        && location.split_once('/').is_some_and(|(host, path)| !host.is_empty() && !path.is_empty())
}
