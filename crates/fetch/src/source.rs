//! Addresses of things on other machines, as users write them.

use std::{fmt, str::FromStr};

use reqwest::Url;

use crate::names;

/// Something on another machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// `hf://` or `ms://`: a repository of a hub, or a part of it.
    Repository(Repository),
    /// `https://` or `http://`: one file.
    Web(Url),
    /// `s3://BUCKET/KEY`, or `s3://BUCKET/PREFIX/` for all objects below.
    Bucket {
        /// The bucket.
        bucket: String,
        /// The key, or a prefix that ends in `/`; empty for the whole bucket.
        key: String,
    },
}

/// A hub of models and data sets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hub {
    /// huggingface.co, or a mirror.
    HuggingFace,
    /// modelscope.cn.
    ModelScope,
}

impl Hub {
    fn scheme(self) -> &'static str {
        match self {
            Self::HuggingFace => "hf",
            Self::ModelScope => "ms",
        }
    }

    /// The branch that is meant if none is named.
    fn main_branch(self) -> &'static str {
        match self {
            Self::HuggingFace => "main",
            Self::ModelScope => "master",
        }
    }
}

/// A repository of a hub, or a part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Where it is.
    pub hub: Hub,
    /// Whether it holds data, and not a model.
    pub is_dataset: bool,
    /// `org/name`
    pub id: String,
    /// A branch, a tag or a commit.
    pub revision: String,
    /// A file, or a folder of which everything is meant.
    pub path: Option<String>,
}

impl Repository {
    /// `models` or `datasets`, as the addresses of both hubs have it.
    pub(crate) fn plural(&self) -> &'static str {
        if self.is_dataset { "datasets" } else { "models" }
    }

    /// The commit, if the revision is one: nothing needs to be asked then.
    pub fn commit(&self) -> Option<&str> {
        let is_commit = self.revision.len() == 40 && self.revision.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_commit.then_some(self.revision.as_str())
    }

    /// The repository and its revision, always written the same.
    pub fn name(&self) -> String {
        let datasets = if self.is_dataset { "datasets/" } else { "" };
        // A `/` in a branch would begin the path.
        let revision = if is_ref(&self.revision) { self.revision.clone() } else { self.revision.replace('/', "%2F") };
        format!("{}://{datasets}{}@{revision}", self.hub.scheme(), self.id)
    }
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name())?;
        self.path.iter().try_for_each(|path| write!(f, "/{path}"))
    }
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

impl SourceError {
    /// An error with what would be right.
    pub fn new(message: impl Into<String>, help: impl Into<String>) -> Self {
        Self { message: message.into(), help: help.into() }
    }
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let (scheme, location) = text.split_once("://").unwrap_or(("", text));
        let source = match scheme {
            "hf" => repository(Hub::HuggingFace, location),
            "ms" => repository(Hub::ModelScope, location),
            "https" | "http" => web(text),
            "s3" => bucket(location),
            _ => {
                return Err(SourceError::new(
                    format!("`{scheme}` is not a known scheme"),
                    "the schemes are file://, hf://, ms://, https:// and s3://",
                ));
            }
        };
        let example = match scheme {
            "hf" => "hf://ORG/NAME, hf://ORG/NAME@REVISION, hf://ORG/NAME/PATH or hf://datasets/ORG/NAME",
            "ms" => "ms://ORG/NAME, ms://ORG/NAME@REVISION, ms://ORG/NAME/PATH or ms://datasets/ORG/NAME",
            "s3" => "s3://BUCKET/KEY, or s3://BUCKET/PREFIX/ for all below",
            _ => "https://HOST/PATH",
        };
        source.ok_or_else(|| {
            let shown = text.split_once('?').map_or(text, |(before, _)| before);
            let message = format!("`{shown}` is not a valid {scheme}:// source");
            SourceError::new(message, format!("write it as {example}"))
        })
    }
}

fn repository(hub: Hub, location: &str) -> Option<Source> {
    let (is_dataset, location) = match location.strip_prefix("datasets/") {
        Some(location) => (true, location),
        None => (false, location),
    };
    let (organisation, rest) = location.split_once('/')?;
    let end = rest.find(['/', '@']).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    if !is_name(organisation) || !is_name(name) {
        return None;
    }
    let (revision, path) = match rest.strip_prefix('@') {
        Some(rest) => revision(rest)?,
        None => (hub.main_branch().to_owned(), rest),
    };
    let path =
        path.strip_prefix('/').map(|path| path.strip_suffix('/').unwrap_or(path)).filter(|path| !path.is_empty());
    if path.is_some_and(|path| names::check(path).is_err()) {
        return None;
    }
    let id = format!("{organisation}/{name}");
    Some(Source::Repository(Repository { hub, is_dataset, id, revision, path: path.map(str::to_owned) }))
}

/// Splits what stands behind the `@`. A `/` ends the revision, but in `refs/pr/1` and `refs/convert/parquet`; in a branch
/// it is written `%2F`.
fn revision(text: &str) -> Option<(String, &str)> {
    let parts = if text.starts_with("refs/") { 3 } else { 1 };
    let end = text.match_indices('/').nth(parts - 1).map_or(text.len(), |(at, _)| at);
    let (revision, path) = text.split_at(end);
    let revision = revision.replace("%2F", "/").replace("%2f", "/");
    revision.split('/').all(is_name).then_some((revision, path))
}

fn is_ref(revision: &str) -> bool {
    revision.starts_with("refs/") && revision.split('/').count() == 3
}

fn is_name(name: &str) -> bool {
    const NAME_BYTES: usize = 96;
    name.len() <= NAME_BYTES
        && name.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
        && !name.contains("..")
}

fn web(text: &str) -> Option<Source> {
    let url = Url::parse(text).ok()?;
    let names_a_file = url.path_segments()?.next_back().is_some_and(|name| !name.is_empty());
    (names_a_file && !text.contains(char::is_whitespace)).then_some(Source::Web(url))
}

fn bucket(location: &str) -> Option<Source> {
    let (bucket, key) = location.split_once('/')?;
    let is_bucket = !bucket.is_empty()
        && bucket.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    let file = key.strip_suffix('/').unwrap_or(key);
    (is_bucket && (key.is_empty() || names::check(file).is_ok()))
        .then(|| Source::Bucket { bucket: bucket.to_owned(), key: key.to_owned() })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn repositories_have_one_way_to_be_written() {
        for (text, name, path) in [
            ("hf://Qwen/Qwen3-1.7B", "hf://Qwen/Qwen3-1.7B@main", None),
            ("hf://Qwen/Qwen3-1.7B@main", "hf://Qwen/Qwen3-1.7B@main", None),
            ("hf://Qwen/Qwen3-1.7B/", "hf://Qwen/Qwen3-1.7B@main", None),
            ("hf://Qwen/Qwen3-1.7B@v1/a/b.txt", "hf://Qwen/Qwen3-1.7B@v1", Some("a/b.txt")),
            ("hf://Qwen/Qwen3-1.7B/a@b.txt", "hf://Qwen/Qwen3-1.7B@main", Some("a@b.txt")),
            ("hf://datasets/a/b@refs/convert/parquet/x/y", "hf://datasets/a/b@refs/convert/parquet", Some("x/y")),
            ("hf://a/b@feat%2Fone/x", "hf://a/b@feat%2Fone", Some("x")),
            ("ms://Qwen/Qwen3-1.7B", "ms://Qwen/Qwen3-1.7B@master", None),
        ] {
            let Ok(Source::Repository(repository)) = text.parse() else { panic!("{text}") };
            assert_eq!((repository.name().as_str(), repository.path.as_deref()), (name, path), "{text}");
        }
        let Ok(Source::Repository(repository)) = "hf://a/b@feat%2Fone/x".parse() else { panic!() };
        assert_eq!(repository.revision, "feat/one");
    }

    #[test]
    fn what_is_no_source_is_refused() {
        for text in [
            "hf://Qwen",
            "hf://Qwen/",
            "hf://a/b@",
            "hf://a/b@x/../y",
            "ms://../x",
            "hf://a/b/../c",
            "https://host",
            "https://host/",
            "https:///x",
            "https://host/a b",
            "s3://bucket",
            "s3:///x",
            "s3://b/../x",
            "hf://a/..b",
        ] {
            assert!(text.parse::<Source>().is_err(), "{text}");
        }
        let error = "https://host/?token=secret".parse::<Source>().unwrap_err();
        assert!(!error.message.contains("secret"));
    }
}
