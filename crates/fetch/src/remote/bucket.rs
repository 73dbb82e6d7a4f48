//! Buckets that speak S3.
//!
//! They have no commits: a digest of the list of objects, with their tags and versions, is the pin, and every part that
//! is fetched must still have the tag that was listed.

use async_trait::async_trait;
use futures_util::{StreamExt, TryStreamExt};
use object_store::{
    ClientOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, RetryConfig,
    aws::{AmazonS3, AmazonS3Builder},
    path::Path,
};

use super::{Body, FILES, Remote, RemoteFile, Wanted, digest_of};
use crate::{
    Error, Settings,
    client::Client,
    credentials, names,
    patience::Patience,
    redact::{Secrets, first_line},
};

/// The objects of a key or below a prefix.
pub(super) struct Bucket {
    store: AmazonS3,
    bucket: String,
    key: String,
    offline: Option<&'static str>,
    secrets: Secrets,
}

impl Bucket {
    pub(super) fn new(bucket: &str, key: &str, settings: &Settings) -> Result<Self, Error> {
        let mut options = ClientOptions::new()
            .with_http1_only()
            .with_connect_timeout(settings.tuning.connect_timeout)
            // A large file may take hours; that nothing comes is noticed elsewhere.
            .with_timeout_disabled();
        let mut builder = AmazonS3Builder::new().with_bucket_name(bucket);
        let found = credentials::of(settings);
        for (name, value) in &found.variables {
            if let Ok(name) = name.to_ascii_lowercase().parse() {
                builder = builder.with_config(name, value.secret());
            }
        }
        if let Some(endpoint) = &found.endpoint {
            builder = builder.with_endpoint(endpoint);
            options = options.with_allow_http(endpoint.starts_with("http://"));
        }
        let store = builder
            // Public buckets want no signature.
            .with_skip_signature(found.is_anonymous)
            .with_client_options(options)
            // Trying again is the work of those who ask here.
            .with_retry(RetryConfig { max_retries: 0, ..RetryConfig::default() })
            .build();
        let store = store.map_err(|error| Error::Setup(error.to_string()))?;
        let (bucket, key) = (bucket.to_owned(), key.to_owned());
        Ok(Self { store, bucket, key, offline: settings.offline, secrets: Secrets::of(settings) })
    }

    fn address(&self, key: &str) -> String {
        format!("s3://{}/{key}", self.bucket)
    }

    fn explain(&self, error: object_store::Error, key: &str) -> Error {
        use object_store::Error as Store;
        let address = self.address(key);
        // Before it is cut: half a secret would not be found.
        let text = self.secrets.hide(&innermost(&error));
        // Lists are refused as if the server were broken.
        let is_refused =
            status(&text).is_some_and(|status| (400..500).contains(&status) && ![408, 425, 429].contains(&status));
        let transient = match &error {
            _ if status(&text) == Some(404) || matches!(error, Store::NotFound { .. }) => {
                return Error::Missing { what: address, hint: "check bucket and key; a prefix ends in `/`" };
            }
            Store::Precondition { .. } => return Error::Changing { path: address },
            Store::PermissionDenied { .. } | Store::Unauthenticated { .. } => false,
            _ => !is_refused,
        };
        let reason = said(&text).unwrap_or_else(|| first_line(&text));
        Error::Store { address, reason, transient }
    }

    fn path(&self, key: &str) -> Result<Path, Error> {
        Path::parse(key).map_err(|_| Error::Name { name: key.to_owned(), reason: "is no key that can be asked for" })
    }

    async fn objects(&self) -> Result<Vec<ObjectMeta>, Error> {
        let folder = match self.key.strip_suffix('/') {
            None if !self.key.is_empty() => {
                let found = self.store.head(&self.path(&self.key)?).await;
                return Ok(vec![found.map_err(|error| self.explain(error, &self.key))?]);
            }
            folder => folder.map(|folder| self.path(folder)).transpose()?,
        };
        let list = self.store.list(folder.as_ref()).take(FILES + 1).try_collect::<Vec<_>>().await;
        let list = list.map_err(|error| self.explain(error, &self.key))?;
        match list.len() {
            0 => {
                Err(Error::Missing { what: self.address(&self.key), hint: "check bucket and prefix: nothing is there" })
            }
            count if count > FILES => {
                let reason = "a list of too many objects".to_owned();
                Err(Error::Answer { address: self.address(&self.key), reason })
            }
            _ => Ok(list),
        }
    }

    async fn files(&self, client: &Client) -> Result<(Vec<RemoteFile>, String), Error> {
        if let Some(variable) = self.offline {
            let missing = format!("{} is on a network", self.address(&self.key));
            return Err(Error::Offline {
                variable,
                missing,
                hint: "run once with a network: pipe keeps what it fetched".to_owned(),
            });
        }
        let mut patience = Patience::new(client.tuning());
        let objects = loop {
            match self.objects().await {
                Ok(objects) => break objects,
                Err(error) => patience.after(error, &self.address(&self.key)).await?,
            }
        };
        let mut versions = std::collections::HashMap::new();
        let mut files = Vec::new();
        for object in objects {
            let key = object.location.to_string();
            let path = match self.key.strip_suffix('/') {
                None if !self.key.is_empty() => key.rsplit('/').next().unwrap_or(&key).to_owned(),
                folder => {
                    key.strip_prefix(folder.unwrap_or_default()).unwrap_or(&key).trim_start_matches('/').to_owned()
                }
            };
            // Consoles make an empty object for a folder.
            if path.is_empty() {
                continue;
            }
            names::check(&path)?;
            versions.insert(path.clone(), object.version);
            files.push(RemoteFile { path, key, bytes: Some(object.size), digest: None, etag: object.e_tag });
        }
        let extra = |file: &RemoteFile| format!("{:?} {:?}", file.etag, versions.get(&file.path));
        let pin = digest_of(&files, extra);
        Ok((files, pin))
    }
}

/// The HTTP status that an error's text names: `Server returned non-2xx status code: 403 Forbidden: ...`.
fn status(text: &str) -> Option<u16> {
    text.split_once("status code: ")?.1.get(..3)?.parse().ok()
}

fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// What S3 says in XML: `InvalidAccessKeyId: The access key ID ... does not exist`.
fn said(text: &str) -> Option<String> {
    let element = |name: &str| {
        let text = text.split_once(&format!("<{name}>"))?.1;
        Some(first_line(text.split_once(&format!("</{name}>"))?.0))
    };
    Some(format!("{}: {}", element("Code")?, element("Message")?))
}

#[async_trait]
impl Remote for Bucket {
    async fn resolve(&self, client: &Client) -> Result<String, Error> {
        Ok(self.files(client).await?.1)
    }

    async fn list(&self, client: &Client, pin: &str) -> Result<Vec<RemoteFile>, Error> {
        let (files, found) = self.files(client).await?;
        if found != pin {
            return Err(Error::Moved { name: self.address(&self.key), pinned: pin.to_owned(), found });
        }
        Ok(files)
    }

    async fn open(&self, client: &Client, wanted: Wanted<'_>) -> Result<Body, Error> {
        let Wanted { file, range, .. } = wanted;
        let address = self.address(&file.key);
        // An empty range of an empty object is an error for some servers.
        let mut options = GetOptions::default().with_if_match(file.etag.clone());
        let is_part = range.is_some();
        options.range = range.map(|range| GetRange::Bounded(range.start..range.end));
        let path = self.path(&file.key)?;
        let stall = client.tuning().stall_timeout;
        let asked = tokio::time::timeout(stall, self.store.get_opts(&path, options)).await;
        let found = asked.map_err(|_| Error::Stalled { address: address.clone(), after: stall })?;
        let found = found.map_err(|error| self.explain(error, &file.key))?;
        let (start, total, etag) = (found.range.start, Some(found.meta.size), found.meta.e_tag.clone());
        let stream = found.into_stream().map(|chunk| chunk.map_err(|error| innermost(&error))).boxed();
        Ok(Body { is_part, start, total, etag, address, stream })
    }
}
