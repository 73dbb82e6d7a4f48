//! One file at an address of the web. What it must hold is for the caller to say.

use std::ops::Range;

use async_trait::async_trait;
use percent_encoding::percent_decode_str;
use reqwest::{Url, header::HeaderMap};

use super::{Body, Remote, RemoteFile, Wanted};
use crate::{
    Error,
    client::{Client, Request},
    names,
    patience::Patience,
    redact::shown,
};

/// A file at an address.
pub(super) struct Web {
    url: Url,
}

impl Web {
    pub(super) fn new(url: Url) -> Self {
        Self { url }
    }

    async fn ask(&self, client: &Client, range: Option<Range<u64>>, etag: Option<&str>) -> Result<Body, Error> {
        let if_range = etag.filter(|etag| !etag.starts_with("W/"));
        let request = Request { range, if_range, ..Request::new(self.url.clone(), &HeaderMap::new()) };
        client.open(&request, |_| Ok(())).await.map_err(|error| match error {
            Error::Status { status: 404 | 410, redirected: false, .. } => {
                Error::Missing { what: shown(&self.url), hint: "check the address" }
            }
            error => error,
        })
    }
}

#[async_trait]
impl Remote for Web {
    async fn resolve(&self, _client: &Client) -> Result<String, Error> {
        // The digest that the pipeline names is the pin.
        Ok(String::new())
    }

    async fn list(&self, client: &Client, _pin: &str) -> Result<Vec<RemoteFile>, Error> {
        let last = self.url.path_segments().and_then(|mut parts| parts.next_back()).unwrap_or_default();
        let name = percent_decode_str(last).decode_utf8_lossy().into_owned();
        names::check(&name)?;
        if name.contains('/') {
            return Err(Error::Name { name, reason: "has an encoded `/`" });
        }
        let mut patience = Patience::new(client.tuning());
        let body = loop {
            // Many addresses are signed for GET only, so HEAD would not do.
            match self.ask(client, Some(0..1), None).await {
                // An empty file has no first byte.
                Err(Error::Status { status: 416, .. }) => break self.ask(client, None, None).await?,
                Err(error) => patience.after(error, &shown(&self.url)).await?,
                Ok(body) => break body,
            }
        };
        Ok(vec![RemoteFile { key: String::new(), path: name, bytes: body.total, digest: None, etag: body.etag }])
    }

    async fn open(&self, client: &Client, wanted: Wanted<'_>) -> Result<Body, Error> {
        let Wanted { range, etag, .. } = wanted;
        self.ask(client, range, etag).await
    }
}
