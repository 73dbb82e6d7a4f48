//! The Hugging Face hub and its mirrors.
//!
//! Large files carry their SHA-256, others the name that git gives their bytes.

use async_trait::async_trait;
use reqwest::header::{self, HeaderMap};
use serde::Deserialize;

use super::{Body, FILES, Remote, RemoteFile, Wanted, part_of, site::Site};
use crate::{
    Digest, Error, Repository, Settings, cache,
    client::{Client, Request, secret},
    names,
    redact::shown,
};

/// The variable that holds the token, for hints.
const TOKEN: &str = "HF_TOKEN";

/// A repository of the Hugging Face hub.
pub(super) struct HuggingFace {
    site: Site,
    settings: Settings,
}

#[derive(Deserialize)]
struct Revision {
    sha: String,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    oid: Option<String>,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

impl HuggingFace {
    pub(super) fn new(repository: Repository, settings: &Settings) -> Self {
        let token = settings.hf_token.as_ref();
        let bearer = token.and_then(|token| secret(header::AUTHORIZATION, format!("Bearer {}", token.secret())));
        let endpoint = settings.hf_endpoint.clone();
        let site = Site { repository, endpoint, secrets: bearer.into_iter().collect() };
        Self { site, settings: settings.clone() }
    }

    fn page(&self) -> String {
        let datasets: &[&str] = if self.site.repository.is_dataset { &["datasets"] } else { &[] };
        shown(&self.site.address(datasets, []))
    }

    /// What a refusal means here.
    fn explain(&self, error: Error, path: Option<&str>) -> Error {
        let error = match error {
            Error::Attempts { source, .. } if !source.is_transient() => *source,
            error => error,
        };
        let Error::Status { status, code, message, redirected, .. } = &error else { return error };
        let with_token = self.site.with_token();
        let (repository, page, variable) = (self.site.repository.id.clone(), self.page(), TOKEN);
        let gated = code == "GatedRepo" || message.to_ascii_lowercase().contains("gated");
        match status {
            _ if *redirected => error,
            401 | 403 if gated => Error::Gated { repository, page, with_token, variable },
            401 if with_token && code != "RepoNotFound" => Error::Token { host: self.site.host(), variable },
            401 | 403 => Error::NotForUs { repository, page, with_token, variable },
            404 if code == "RevisionNotFound" => self.missing_revision(),
            404 if code == "EntryNotFound" => Error::Missing {
                what: format!("the file `{}` of {}", path.unwrap_or_default(), self.site.repository.name()),
                hint: "check the path",
            },
            404 if with_token => Error::NotForUs { repository, page, with_token, variable },
            404 => Error::Missing {
                what: format!("{} at {}", self.site.repository.id, self.site.host()),
                hint: "check the name: data sets are written hf://datasets/ORG/NAME",
            },
            _ => error,
        }
    }

    fn missing_revision(&self) -> Error {
        let what = format!("the revision `{}` of {}", self.site.repository.revision, self.site.repository.id);
        Error::Missing { what, hint: "name a branch, a tag or a commit of it; without `@` it is `main`" }
    }

    async fn tree(&self, client: &Client, commit: &str) -> Result<Vec<Entry>, Error> {
        let mut url = self.site.address(&["api", self.site.repository.plural()], ["tree", commit]);
        url.set_query(Some("recursive=true&expand=false"));
        let mut entries = Vec::new();
        loop {
            let answer = client.json::<Vec<Entry>>(&Request::new(url.clone(), &self.site.secrets)).await;
            let (headers, page) = answer.map_err(|error| self.explain(error, None))?;
            let before = entries.len();
            entries.extend(page);
            let problem = |reason: &str| Error::Answer { address: shown(&url), reason: reason.to_owned() };
            if entries.len() > FILES {
                return Err(problem("a list of too many files"));
            }
            let link = headers.get(header::LINK).and_then(|value| value.to_str().ok()).and_then(next_page);
            let Some(link) = link else { return Ok(entries) };
            let next = url.join(link).map_err(|_| problem("a next page without an address"))?;
            // Some mirrors name the hub itself here: the next page is asked of the mirror too.
            let mut following = url.clone();
            following.set_path(next.path());
            following.set_query(next.query());
            if following == url || entries.len() == before {
                return Err(problem("a list without end"));
            }
            url = following;
        }
    }
}

/// The address of `<...>; rel="next"`.
fn next_page(link: &str) -> Option<&str> {
    let next = link.split(',').find(|part| part.contains("rel=\"next\""))?;
    Some(next.split_once('<')?.1.split_once('>')?.0)
}

#[async_trait]
impl Remote for HuggingFace {
    async fn resolve(&self, client: &Client) -> Result<String, Error> {
        if self.settings.offline.is_some() {
            return cache::offline_commit(&self.site.repository, &self.settings);
        }
        let url =
            self.site.address(&["api", self.site.repository.plural()], ["revision", &self.site.repository.revision]);
        let answer = client.json::<Revision>(&Request::new(url.clone(), &self.site.secrets)).await;
        let (_, Revision { sha }) = answer.map_err(|error| self.explain(error, None))?;
        if Digest::git_blob(&sha).is_none() {
            return Err(Error::Answer { address: shown(&url), reason: "no commit".to_owned() });
        }
        Ok(sha)
    }

    async fn list(&self, client: &Client, pin: &str) -> Result<Vec<RemoteFile>, Error> {
        if self.settings.offline.is_some() {
            return Ok(part_of(
                cache::offline_files(&self.site.repository, pin, &self.settings)?,
                self.site.repository.path.as_deref(),
            ));
        }
        let files = self.tree(client, pin).await?.into_iter().filter(|entry| entry.kind == "file").map(|entry| {
            let (bytes, digest) = match &entry.lfs {
                Some(lfs) => (lfs.size, Digest::sha256(lfs.oid.trim_start_matches("sha256:"))),
                None => (entry.size, entry.oid.as_deref().and_then(Digest::git_blob)),
            };
            names::check(&entry.path)?;
            if digest.is_none() {
                let reason = format!("no digest of {:?}", entry.path);
                return Err(Error::Answer { address: self.page(), reason });
            }
            Ok(RemoteFile { key: entry.path.clone(), path: entry.path, bytes: Some(bytes), digest, etag: None })
        });
        Ok(part_of(files.collect::<Result<_, Error>>()?, self.site.repository.path.as_deref()))
    }

    async fn open(&self, client: &Client, wanted: Wanted<'_>) -> Result<Body, Error> {
        let Wanted { pin, file, range, .. } = wanted;
        let datasets: &[&str] = if self.site.repository.is_dataset { &["datasets"] } else { &[] };
        let url = self.site.address(datasets, ["resolve", pin].into_iter().chain(file.key.split('/')));
        let address = shown(&url);
        let linked = |headers: &HeaderMap| {
            let value = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            let differs = |name: &str, found: &str, expected: &str| {
                let reason = format!("{name} is {found:?}, the list of files says {expected:?}");
                Err(Error::Answer { address: address.clone(), reason })
            };
            match value("x-repo-commit") {
                Some(commit) if !commit.eq_ignore_ascii_case(pin) => differs("the commit", commit, pin)?,
                _ => {}
            }
            if let (Some(size), Some(expected)) = (value("x-linked-size"), file.bytes)
                && size.parse() != Ok(expected)
            {
                differs("the size", size, &expected.to_string())?;
            }
            let etag = value("x-linked-etag").map(|etag| etag.trim_start_matches("W/").trim_matches('"'));
            match (etag.and_then(Digest::of_either), &file.digest) {
                (Some(found), Some(expected)) if found != *expected => {
                    differs("the digest", found.hex(), expected.hex())
                }
                _ => Ok(()),
            }
        };
        let request = Request { range, ..Request::new(url, &self.site.secrets) };
        let mut body = client.open(&request, linked).await.map_err(|error| self.explain(error, Some(&file.key)))?;
        // The commit and the digest say which bytes these are; the stores behind the hub have tags of their own.
        body.etag = None;
        Ok(body)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::Source;

    #[test]
    fn addresses_are_below_the_endpoint_and_encoded() {
        let settings =
            Settings::from_variables(|name| (name == "HF_ENDPOINT").then(|| "http://h:1/hf/".to_owned())).unwrap();
        let Ok(Source::Repository(repository)) = "hf://a/b@refs/pr/1".parse() else { panic!() };
        let hub = HuggingFace::new(repository, &settings);
        assert_eq!(
            hub.site.address(&["api", "models"], ["revision", "refs/pr/1"]).as_str(),
            "http://h:1/hf/api/models/a/b/revision/refs%2Fpr%2F1"
        );
        let file = hub.site.address(&[], "resolve/c/数 据/a?b#c%2F".split('/'));
        assert!(file.query().is_none() && file.fragment().is_none());
        assert_eq!(file.path(), "/hf/a/b/resolve/c/%E6%95%B0%20%E6%8D%AE/a%3Fb%23c%252F");
    }

    #[test]
    fn the_next_page_is_the_one_that_says_so() {
        assert_eq!(next_page("<http://h/1>; rel=\"prev\", <http://h/2?x=y>; rel=\"next\""), Some("http://h/2?x=y"));
        assert_eq!(next_page("<http://h/1>; rel=\"prev\""), None);
    }
}
