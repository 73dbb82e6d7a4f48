//! Requests over HTTP: redirections that no token follows, ranges, answers of bounded length.

use std::{
    error::Error as _,
    ops::Range,
    time::{Duration, SystemTime},
};

use futures_util::StreamExt;
use reqwest::{
    Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};
use serde::de::DeserializeOwned;

use crate::{
    Error, Settings, Tuning,
    patience::{Patience, retry_after},
    redact::{Secrets, first_line, same_origin, shown},
    remote::Body,
};

/// As many redirections are followed.
const REDIRECTIONS: usize = 10;

/// A list of files, or a page of it, is at most so long.
const LIST_BYTES: usize = 64 << 20;

/// As much of an error's page is read.
const ERROR_BYTES: usize = 16 << 10;

/// What to ask for.
pub(crate) struct Request<'a> {
    pub(crate) url: Url,
    /// Sent to the server of `url`, and to no other that it leads to.
    pub(crate) secrets: HeaderMap,
    /// The bytes wanted; `None` for all.
    pub(crate) range: Option<Range<u64>>,
    /// Only if this is still the entity tag.
    pub(crate) if_range: Option<&'a str>,
}

impl Request<'_> {
    pub(crate) fn new(url: Url, secrets: &HeaderMap) -> Self {
        Self { url, secrets: secrets.clone(), range: None, if_range: None }
    }
}

/// An answer that says yes.
pub(crate) struct Answer {
    pub(crate) response: Response,
    /// The headers of the server that was asked, before any redirection.
    pub(crate) first: HeaderMap,
    /// Where it came from, fit to be shown.
    pub(crate) address: String,
}

/// Makes requests.
pub(crate) struct Client {
    http: reqwest::Client,
    tuning: Tuning,
    secrets: Secrets,
}

impl Client {
    pub(crate) fn new(settings: &Settings) -> Result<Self, Error> {
        // Another part of the process may have chosen before; then that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let tuning = settings.tuning.clone();
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("pipe/", env!("CARGO_PKG_VERSION")))
            // Several ranges want several connections, not one that is shared.
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(tuning.connect_timeout)
            .pool_max_idle_per_host(tuning.connections);
        if !tuning.proxies {
            builder = builder.no_proxy();
        }
        let http = builder.build().map_err(|error| Error::Setup(reason(&error)))?;
        Ok(Self { http, tuning, secrets: Secrets::of(settings) })
    }

    pub(crate) fn tuning(&self) -> &Tuning {
        &self.tuning
    }

    /// What this process sends and must not show.
    pub(crate) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    /// Asks once, and follows where it is sent.
    pub(crate) async fn send(&self, request: &Request<'_>) -> Result<Answer, Error> {
        let (mut url, mut first) = (request.url.clone(), None);
        for hop in 0..=REDIRECTIONS {
            let mut headers = HeaderMap::new();
            if same_origin(&url, &request.url) {
                headers.extend(request.secrets.clone());
            }
            // A compressed answer has other bytes, and ranges of it mean others.
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
            if let Some(range) = &request.range {
                let value = match range.end {
                    u64::MAX => format!("bytes={}-", range.start),
                    end => format!("bytes={}-{}", range.start, end - 1),
                };
                headers.insert(header::RANGE, HeaderValue::try_from(value).map_err(|error| answer(&url, error))?);
                if let Some(tag) = request.if_range.and_then(|tag| HeaderValue::from_str(tag).ok()) {
                    headers.insert(header::IF_RANGE, tag);
                }
            }
            let sent = self.http.get(url.clone()).headers(headers).send();
            let response = match tokio::time::timeout(self.tuning.stall_timeout, sent).await {
                Ok(Ok(response)) => response,
                Ok(Err(error)) => return Err(Error::Unreachable { address: shown(&url), reason: reason(&error) }),
                Err(_) => return Err(Error::Stalled { address: shown(&url), after: self.tuning.stall_timeout }),
            };
            let first = first.get_or_insert_with(|| response.headers().clone());
            let status = response.status();
            if is_redirection(status) {
                url = target(&url, &response)?;
                continue;
            }
            if status.is_success() {
                return Ok(Answer { response, first: first.clone(), address: shown(&url) });
            }
            return Err(self.refusal(&url, response, hop > 0).await);
        }
        Err(Error::Answer { address: shown(&request.url), reason: "it redirects without end".to_owned() })
    }

    async fn refusal(&self, url: &Url, response: Response, redirected: bool) -> Error {
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned).unwrap_or_default()
        };
        let (status, code, said) = (response.status().as_u16(), header("x-error-code"), header("x-error-message"));
        let retry_after = retry_after(&header("retry-after"), SystemTime::now());
        let page = match said.is_empty() {
            true => self.text(response, ERROR_BYTES, &shown(url)).await.unwrap_or_default(),
            false => said.into_bytes(),
        };
        // Before it is cut: half a token would not be found.
        let message = first_line(&self.secrets.hide(&message_of(&String::from_utf8_lossy(&page))));
        Error::Status { address: shown(url), status, code, message, retry_after, redirected }
    }

    /// The body as a whole, at most `limit` bytes.
    async fn text(&self, response: Response, limit: usize, address: &str) -> Result<Vec<u8>, Error> {
        let (mut stream, mut bytes) = (response.bytes_stream(), Vec::new());
        loop {
            let Ok(next) = tokio::time::timeout(self.tuning.stall_timeout, stream.next()).await else {
                return Err(Error::Stalled { address: address.to_owned(), after: self.tuning.stall_timeout });
            };
            match next {
                None => return Ok(bytes),
                Some(Ok(chunk)) if bytes.len() + chunk.len() <= limit => bytes.extend_from_slice(&chunk),
                Some(Ok(_)) => {
                    let reason = format!("more than {limit} bytes");
                    return Err(Error::Answer { address: address.to_owned(), reason });
                }
                Some(Err(error)) => {
                    return Err(Error::Unreachable { address: address.to_owned(), reason: reason(&error) });
                }
            }
        }
    }

    /// Asks for JSON until it comes. Returns the headers too.
    pub(crate) async fn json<T: DeserializeOwned>(&self, request: &Request<'_>) -> Result<(HeaderMap, T), Error> {
        let mut patience = Patience::new(&self.tuning);
        loop {
            let attempt = async {
                let answer = self.send(request).await?;
                let headers = answer.response.headers().clone();
                Ok((headers, self.text(answer.response, LIST_BYTES, &answer.address).await?, answer.address))
            };
            match attempt.await {
                Ok((headers, bytes, address)) => {
                    let read = serde_json::from_slice(&bytes);
                    return read.map(|value| (headers, value)).map_err(|error| Error::Answer {
                        address,
                        // Its text may quote the answer, but for the place.
                        reason: format!("no valid JSON at line {} column {}", error.line(), error.column()),
                    });
                }
                Err(error) => patience.after(error, &shown(&request.url)).await?,
            }
        }
    }

    /// Opens the bytes of a file. `linked` looks at the headers of the server that was asked.
    pub(crate) async fn open(
        &self,
        request: &Request<'_>,
        linked: impl FnOnce(&HeaderMap) -> Result<(), Error>,
    ) -> Result<Body, Error> {
        let Answer { response, first, address } = self.send(request).await?;
        linked(&first)?;
        let text = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        let encoding = text(header::CONTENT_ENCODING).filter(|encoding| *encoding != "identity");
        if let Some(encoding) = encoding {
            return Err(Error::Answer {
                address,
                reason: format!("bytes in the encoding {encoding:?}, not asked for"),
            });
        }
        let etag = text(header::ETAG).map(str::to_owned);
        let is_part = response.status() == StatusCode::PARTIAL_CONTENT;
        let (start, total) = if is_part {
            let range = text(header::CONTENT_RANGE).and_then(content_range);
            range.ok_or_else(|| Error::Answer {
                address: address.clone(),
                reason: "a part without its range".to_owned(),
            })?
        } else {
            (0, text(header::CONTENT_LENGTH).and_then(|length| length.parse().ok()))
        };
        let stream = response.bytes_stream().map(|chunk| chunk.map_err(|error| reason(&error))).boxed();
        Ok(Body { is_part, start, total, etag, address, stream })
    }
}

fn is_redirection(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

fn target(url: &Url, response: &Response) -> Result<Url, Error> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let target = url.join(location).map_err(|_| answer(url, "a redirection to no address"))?;
    match (url.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(target),
        _ => Err(answer(url, "a redirection away from https")),
    }
}

fn answer(url: &Url, reason: impl ToString) -> Error {
    Error::Answer { address: shown(url), reason: reason.to_string() }
}

/// `bytes 5-9/10`: the first byte, and how many there are in all.
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.strip_prefix("bytes ")?.split_once('/')?;
    Some((range.split_once('-')?.0.parse().ok()?, total.parse().ok()))
}

/// Hubs put what is wrong into JSON, one as `error`, the other as `Message`.
fn message_of(page: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(page).unwrap_or_default();
    let said = ["error", "Message", "message"].iter().find_map(|name| value.get(name)?.as_str());
    said.unwrap_or(page).to_owned()
}

/// The innermost cause, which is what says something. It holds no address.
fn reason(error: &reqwest::Error) -> String {
    if error.is_timeout() {
        return "no connection in time".to_owned();
    }
    let mut cause: &dyn std::error::Error = match error.source() {
        Some(cause) => cause,
        None => return "the request failed".to_owned(),
    };
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// A header that must not be shown.
pub(crate) fn secret(name: HeaderName, value: String) -> Option<(HeaderName, HeaderValue)> {
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

/// The chunk that comes next, or why none does.
pub(crate) async fn next_chunk(
    body: &mut Body,
    stall: Duration,
) -> Result<Option<Result<bytes::Bytes, String>>, Error> {
    let next = tokio::time::timeout(stall, body.stream.next()).await;
    next.map_err(|_| Error::Stalled { address: body.address.clone(), after: stall })
}
