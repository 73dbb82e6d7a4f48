//! The places where files are. Each is one file here: it lists, pins, and opens bytes; the rest is the same for all.

mod bucket;
mod hugging_face;
mod model_scope;
mod site;
mod web;

use std::{ops::Range, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream::BoxStream;

use crate::{Digest, Error, Hub, Settings, Source, client::Client};

/// A list of more files than this is not taken.
const FILES: usize = 200_000;

/// A file as a list describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteFile {
    /// Relative to the source, `/` between the parts. No name that could do harm.
    pub path: String,
    /// Its name where it is.
    pub(crate) key: String,
    /// Its length; `None` if that is not told.
    pub bytes: Option<u64>,
    /// What its bytes must have.
    pub digest: Option<Digest>,
    /// The entity tag that every part of it must have.
    pub etag: Option<String>,
}

/// Bytes that somebody wants.
pub(crate) struct Wanted<'a> {
    /// What the source stands for.
    pub(crate) pin: &'a str,
    /// The file.
    pub(crate) file: &'a RemoteFile,
    /// Which bytes of it; all if that is `None`.
    pub(crate) range: Option<Range<u64>>,
    /// The entity tag that other parts of it had.
    pub(crate) etag: Option<&'a str>,
}

/// Bytes on their way.
pub(crate) struct Body {
    /// Whether they are the range that was asked for. Servers that do not know ranges send everything.
    pub(crate) is_part: bool,
    /// Where in the file they begin.
    pub(crate) start: u64,
    /// The length of the whole file, if that is told.
    pub(crate) total: Option<u64>,
    pub(crate) etag: Option<String>,
    /// Where they come from, fit to be shown.
    pub(crate) address: String,
    /// Errors are told without addresses.
    pub(crate) stream: BoxStream<'static, Result<Bytes, String>>,
}

/// A source on another machine.
#[async_trait]
pub(crate) trait Remote: Send + Sync {
    /// What the source stands for now: a commit, or a digest of the list of its files.
    async fn resolve(&self, client: &Client) -> Result<String, Error>;

    /// The files of what `pin` stands for.
    async fn list(&self, client: &Client, pin: &str) -> Result<Vec<RemoteFile>, Error>;

    /// Opens what is wanted of a file. One attempt: whoever asks tries again.
    async fn open(&self, client: &Client, wanted: Wanted<'_>) -> Result<Body, Error>;
}

/// The remote of a source.
pub(crate) fn of(source: &Source, settings: &Settings) -> Result<Arc<dyn Remote>, Error> {
    Ok(match source {
        Source::Repository(repository) => match repository.hub {
            Hub::HuggingFace => Arc::new(hugging_face::HuggingFace::new(repository.clone(), settings)),
            Hub::ModelScope => Arc::new(model_scope::ModelScope::new(repository.clone(), settings)),
        },
        Source::Web(url) => Arc::new(web::Web::new(url.clone())),
        Source::Bucket { bucket, key } => Arc::new(bucket::Bucket::new(bucket, key, settings)?),
    })
}

/// A digest of a list of files: the pin of a source that has no commits.
fn digest_of(files: &[RemoteFile], extra: impl Fn(&RemoteFile) -> String) -> String {
    let mut lines: Vec<String> = files
        .iter()
        .map(|file| {
            let digest = file.digest.as_ref().map_or("", Digest::hex);
            format!("{:?} {:?} {digest} {:?}\n", file.path, file.bytes, extra(file))
        })
        .collect();
    lines.sort_unstable();
    crate::digest::sha256_hex(lines.concat().as_bytes())
}

/// The part of a repository that `path` names: that file, or all files below it. Names become relative to it.
fn part_of(files: Vec<RemoteFile>, path: Option<&str>) -> Vec<RemoteFile> {
    let Some(path) = path else { return files };
    if let Some(file) = files.iter().find(|file| file.path == path) {
        let name = path.rsplit('/').next().unwrap_or(path).to_owned();
        return vec![RemoteFile { path: name, ..file.clone() }];
    }
    let below = files.into_iter().filter_map(|file| {
        let name = file.path.strip_prefix(path)?.strip_prefix('/')?.to_owned();
        Some(RemoteFile { path: name, ..file })
    });
    below.collect()
}
