//! The ModelScope hub.
//!
//! It has commits, and takes them as revisions, but does not say in one place which one a branch is: the list of files
//! gives the first digits of the newest, and each file the commit that changed it last. Where the two do not meet, a
//! digest of the list is the pin, and the branch must still have that list when the files are fetched.

use async_trait::async_trait;
use reqwest::header;
use serde::Deserialize;

use super::{Body, FILES, Remote, RemoteFile, Wanted, digest_of, part_of, site::Site};
use crate::{
    Digest, Error, Repository, Settings,
    client::{Client, Request, secret},
    names,
    redact::shown,
};

/// The variable that holds the token, for hints.
const TOKEN: &str = "MODELSCOPE_API_TOKEN";

/// Files on a page of the list of a data set.
const PAGE_FILES: usize = 200;

/// Stands before a digest of a list, to tell it from a commit.
const LIST: &str = "list-";

/// A repository of the ModelScope hub.
pub(super) struct ModelScope {
    site: Site,
    offline: Option<&'static str>,
}

#[derive(Deserialize)]
struct Reply {
    #[serde(rename = "Data")]
    data: Option<Data>,
    #[serde(rename = "Message", default)]
    message: Option<String>,
    #[serde(rename = "Success", default)]
    success: Option<bool>,
}

#[derive(Deserialize)]
struct Data {
    /// Null for a revision that there is not.
    #[serde(rename = "Files")]
    files: Option<Vec<Entry>>,
    #[serde(rename = "LatestCommitter")]
    latest: Option<Committer>,
}

#[derive(Deserialize)]
struct Committer {
    #[serde(rename = "ShortId", default)]
    short_id: Option<String>,
    #[serde(rename = "Id", default)]
    id: Option<String>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(rename = "Path")]
    path: String,
    #[serde(rename = "Type")]
    kind: String,
    #[serde(rename = "Size", default)]
    size: u64,
    #[serde(rename = "Sha256", default)]
    sha256: Option<String>,
    #[serde(rename = "Revision", default)]
    revision: Option<String>,
}

struct List {
    files: Vec<RemoteFile>,
    commit: Option<String>,
}

impl ModelScope {
    pub(super) fn new(repository: Repository, settings: &Settings) -> Self {
        let token = settings.ms_token.as_ref().map(|token| token.secret());
        // Older parts of the hub know the cookie, newer ones the other.
        let bearer = token.and_then(|token| secret(header::AUTHORIZATION, format!("Bearer {token}")));
        let cookie = token.and_then(|token| secret(header::COOKIE, format!("m_session_id={token}")));
        let endpoint = settings.ms_endpoint.clone();
        let site = Site { repository, endpoint, secrets: bearer.into_iter().chain(cookie).collect() };
        Self { site, offline: settings.offline }
    }

    fn page(&self) -> String {
        shown(&self.site.address(&[self.site.repository.plural()], []))
    }

    /// What the hub calls the revision that `pin` is.
    fn revision<'a>(&'a self, pin: &'a str) -> &'a str {
        if pin.starts_with(LIST) { &self.site.repository.revision } else { pin }
    }

    fn explain(&self, error: Error) -> Error {
        let Error::Status { status, redirected: false, .. } = &error else { return error };
        let (with_token, repository) = (self.site.with_token(), self.site.repository.id.clone());
        match status {
            401 if with_token => Error::Token { host: self.site.host(), variable: TOKEN },
            401 | 403 => Error::NotForUs { repository, page: self.page(), with_token, variable: TOKEN },
            404 if with_token => Error::NotForUs { repository, page: self.page(), with_token, variable: TOKEN },
            404 => Error::Missing {
                what: format!("{repository} at {}", self.site.host()),
                hint: "check the name: ModelScope has others than Hugging Face for some models; what is private needs \
                       MODELSCOPE_API_TOKEN; data sets are written ms://datasets/ORG/NAME",
            },
            _ => error,
        }
    }

    async fn page_of_list(&self, client: &Client, revision: &str, number: usize) -> Result<Data, Error> {
        let last = if self.site.repository.is_dataset { "tree" } else { "files" };
        let mut url = self.site.address(&["api", "v1", self.site.repository.plural()], ["repo", last]);
        url.query_pairs_mut().append_pair("Revision", revision).append_pair("Recursive", "True");
        if self.site.repository.is_dataset {
            let (number, size) = (number.to_string(), PAGE_FILES.to_string());
            url.query_pairs_mut()
                .append_pair("Root", "/")
                .append_pair("PageNumber", &number)
                .append_pair("PageSize", &size);
        }
        let answer = client.json::<Reply>(&Request::new(url.clone(), &self.site.secrets)).await;
        let (_, reply) = answer.map_err(|error| self.explain(error))?;
        match reply.data {
            Some(data) if reply.success != Some(false) => Ok(data),
            _ => {
                let reason = crate::redact::first_line(&reply.message.unwrap_or_else(|| "no data".to_owned()));
                Err(Error::Answer { address: shown(&url), reason })
            }
        }
    }

    async fn ask(&self, client: &Client, revision: &str) -> Result<List, Error> {
        let (mut entries, mut latest) = (Vec::new(), None);
        for number in 1.. {
            let data = self.page_of_list(client, revision, number).await?;
            latest = latest.or(data.latest);
            let Some(page) = data.files else {
                let what = format!("the revision `{revision}` of {}", self.site.repository.id);
                return Err(Error::Missing {
                    what,
                    hint: "name a branch, a tag or a commit of it; without `@` it is `master`",
                });
            };
            let is_last = !self.site.repository.is_dataset || page.len() < PAGE_FILES;
            entries.extend(page);
            if entries.len() > FILES {
                return Err(Error::Answer { address: self.page(), reason: "a list of too many files".to_owned() });
            }
            if is_last {
                break;
            }
        }
        let commit = commit_of(latest.as_ref(), &entries);
        let files = entries.into_iter().filter(|entry| entry.kind == "blob").map(|entry| {
            names::check(&entry.path)?;
            let Some(digest) = entry.sha256.as_deref().and_then(Digest::sha256) else {
                return Err(Error::Answer { address: self.page(), reason: format!("no SHA-256 of {:?}", entry.path) });
            };
            let (path, key) = (entry.path.clone(), entry.path);
            Ok(RemoteFile { path, key, bytes: Some(entry.size), digest: Some(digest), etag: None })
        });
        Ok(List { files: files.collect::<Result<_, Error>>()?, commit })
    }
}

/// The commit whose first digits the list gives, in full.
fn commit_of(latest: Option<&Committer>, entries: &[Entry]) -> Option<String> {
    let is_commit = |text: &&str| Digest::git_blob(text).is_some();
    let latest = latest?;
    if let Some(id) = latest.id.as_deref().filter(is_commit) {
        return Some(id.to_owned());
    }
    let short = latest.short_id.as_deref().filter(|short| short.len() >= 7)?;
    let revisions = entries.iter().filter_map(|entry| entry.revision.as_deref());
    revisions.filter(is_commit).find(|revision| revision.starts_with(short)).map(str::to_owned)
}

#[async_trait]
impl Remote for ModelScope {
    async fn resolve(&self, client: &Client) -> Result<String, Error> {
        if let Some(variable) = self.offline {
            let missing = format!("what {} stands for is not known", self.site.repository.name());
            let hint = "run once with a network, and commit pipe.lock; or name the folder of the model with file://"
                .to_owned();
            return Err(Error::Offline { variable, missing, hint });
        }
        let list = self.ask(client, &self.site.repository.revision).await?;
        Ok(list.commit.unwrap_or_else(|| format!("{LIST}{}", digest_of(&list.files, |_| String::new()))))
    }

    async fn list(&self, client: &Client, pin: &str) -> Result<Vec<RemoteFile>, Error> {
        if let Some(variable) = self.offline {
            let missing = format!(
                "{} gives no digests without its hub, so its cache cannot be verified",
                self.site.repository.name()
            );
            let hint = "name the folder of the model in the cache of modelscope as the source, with file://".to_owned();
            return Err(Error::Offline { variable, missing, hint });
        }
        let files = self.ask(client, self.revision(pin)).await?.files;
        if pin.starts_with(LIST) {
            let found = format!("{LIST}{}", digest_of(&files, |_| String::new()));
            if found != pin {
                return Err(Error::Moved { name: self.site.repository.name(), pinned: pin.to_owned(), found });
            }
        }
        Ok(part_of(files, self.site.repository.path.as_deref()))
    }

    async fn open(&self, client: &Client, wanted: Wanted<'_>) -> Result<Body, Error> {
        let Wanted { pin, file, range, .. } = wanted;
        let parts = ["resolve", self.revision(pin)].into_iter().chain(file.key.split('/'));
        let url = self.site.address(&[self.site.repository.plural()], parts);
        let request = Request { range, ..Request::new(url, &self.site.secrets) };
        let mut body = client.open(&request, |_| Ok(())).await.map_err(|error| match error {
            Error::Status { status: 404, redirected: false, .. } => Error::Missing {
                what: format!("the file `{}` of {}", file.key, self.site.repository.name()),
                hint: "check the path",
            },
            error => self.explain(error),
        })?;
        body.etag = None;
        Ok(body)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn the_commit_is_found_by_its_first_digits() {
        let entry = |revision: &str| Entry {
            path: "a".to_owned(),
            kind: "blob".to_owned(),
            size: 0,
            sha256: None,
            revision: Some(revision.to_owned()),
        };
        let (old, new) = ("f".repeat(40), "83ee97c6".repeat(5));
        let latest = |short: &str| Committer { short_id: Some(short.to_owned()), id: Some(String::new()) };
        let entries = [entry(&old), entry(&new), entry("master")];
        assert_eq!(commit_of(Some(&latest("83ee97c6")), &entries), Some(new));
        // The newest commit only removed a file.
        assert_eq!(commit_of(Some(&latest("12345678")), &entries), None);
        assert_eq!(commit_of(Some(&latest("")), &entries), None);
        assert_eq!(commit_of(None, &entries), None);
    }
}
