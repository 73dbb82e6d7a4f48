//! A server on loopback that speaks the protocols of the hubs, and misbehaves where it is told to.
//!
//! One set of files is served as a repository of the Hugging Face hub, as one of ModelScope, and as plain addresses below
//! `/web/`. What was asked and sent is kept for tests to look at.
#![allow(dead_code, clippy::unwrap_used, reason = "shared by several programs, of which each uses a part")]

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, Response},
    serve::ListenerExt as _,
};
use futures_util::{StreamExt, stream};
use sha2::Digest as _;

/// The commit that all branches are until they move.
pub(crate) const COMMIT: &str = "c1899de289a04d12100db370d81485cdf75e47ca";

/// Files from this length on are stored elsewhere: asking for them redirects.
const LARGE_BYTES: usize = 1000;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    /// Decoded.
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) range: Option<String>,
    pub(crate) headers: HeaderMap,
    /// The file, if this asks for bytes of one.
    pub(crate) file: Option<String>,
    /// Which one of the requests for bytes of this file this is, from 0.
    pub(crate) number: usize,
    /// Whether the store answers, to which the hub redirects.
    pub(crate) from_store: bool,
    /// How many bytes were sent.
    pub(crate) sent: Arc<AtomicU64>,
}

/// What to do instead of what is right.
#[derive(Debug, Clone)]
pub(crate) enum Fault {
    /// Another status, with a header and a body.
    Status(u16, &'static str, &'static str, &'static str),
    /// The connection ends after so many bytes.
    CutAfter(usize),
    /// Nothing comes any more after so many bytes.
    StallAfter(usize),
    /// Everything, whatever was asked for.
    IgnoreRange,
    /// The same, cut after so many bytes.
    IgnoreRangeAndCutAfter(usize),
    /// Other bytes.
    Bytes(Vec<u8>),
    /// No length, and more bytes than there are.
    Longer,
    /// Another entity tag.
    Etag(&'static str),
    /// A refusal with this status that tells in its body which tokens were sent.
    Echo(u16),
}

pub(crate) type Behaviour = Box<dyn Fn(&Asked) -> Option<Fault> + Send + Sync>;

/// Bytes and SHA-256 by name.
type Files = BTreeMap<String, (Bytes, String)>;

fn files_of(files: impl IntoIterator<Item = (String, Bytes)>) -> Files {
    let with_digest = |(name, bytes): (String, Bytes)| {
        let digest = hex(&sha2::Sha256::digest(&bytes));
        (name, (bytes, digest))
    };
    files.into_iter().map(with_digest).collect()
}

fn owned(files: &[(&str, Vec<u8>)]) -> Vec<(String, Bytes)> {
    files.iter().map(|(name, bytes)| ((*name).to_owned(), Bytes::from(bytes.clone()))).collect()
}

impl Content {
    /// The commit that all branches are now.
    fn head(&self) -> &'static str {
        self.later.lock().unwrap().last().map_or(COMMIT, |(commit, _)| commit)
    }

    /// The commit in its full length, if `revision` is one of the later ones.
    fn later(&self, revision: &str) -> Option<(&'static str, Arc<Files>)> {
        self.later.lock().unwrap().iter().find(|(commit, _)| *commit == revision).cloned()
    }
}

/// What a server serves, and what it was asked.
pub(crate) struct Content {
    files: Files,
    /// Commits after the first, and their files. All branches are the last.
    later: Mutex<Vec<(&'static str, Arc<Files>)>>,
    pub(crate) log: Mutex<Vec<Asked>>,
    behaviour: Behaviour,
    /// Files on a page of the list.
    pub(crate) page: usize,
    /// Bytes a second and connection; 0 for as fast as it goes.
    pub(crate) rate_bytes: AtomicU64,
    /// Names that the list gives and that are not those of files.
    pub(crate) listed_names: Vec<(String, String)>,
    store: Mutex<String>,
}

/// A running server; ends with the process.
pub(crate) struct Hub {
    pub(crate) address: String,
    pub(crate) content: Arc<Content>,
}

impl Hub {
    pub(crate) fn new(files: &[(&str, Vec<u8>)]) -> Self {
        Self::misbehaving(files, |_| None)
    }

    /// A hub that does what `behaviour` says instead of what is right.
    pub(crate) fn misbehaving(
        files: &[(&str, Vec<u8>)],
        behaviour: impl Fn(&Asked) -> Option<Fault> + Send + Sync + 'static,
    ) -> Self {
        Self::start(0, owned(files), Box::new(behaviour), 1000, Vec::new())
    }

    /// A hub whose list has `page` files on a page, and names beside those of files.
    pub(crate) fn listing(files: Vec<(String, Bytes)>, page: usize, listed_names: Vec<(String, String)>) -> Self {
        Self::start(0, files, Box::new(|_| None), page, listed_names)
    }

    /// A hub at a known port.
    pub(crate) fn at(port: u16, files: Vec<(String, Bytes)>, behaviour: Behaviour) -> Self {
        Self::start(port, files, behaviour, 1000, Vec::new())
    }

    fn start(
        port: u16,
        files: Vec<(String, Bytes)>,
        behaviour: Behaviour,
        page: usize,
        listed_names: Vec<(String, String)>,
    ) -> Self {
        let content = Arc::new(Content {
            files: files_of(files),
            later: Mutex::default(),
            log: Mutex::default(),
            behaviour,
            page,
            rate_bytes: AtomicU64::new(0),
            listed_names,
            store: Mutex::default(),
        });
        let address = serve(Arc::clone(&content), false, port);
        *content.store.lock().unwrap() = serve(Arc::clone(&content), true, 0);
        Self { address, content }
    }

    /// All branches are `commit` from now on, with these files. What was there before is still given to who asks for it.
    pub(crate) fn moves_to(&self, commit: &'static str, files: &[(&str, Vec<u8>)]) {
        self.content.later.lock().unwrap().push((commit, Arc::new(files_of(owned(files)))));
    }

    /// What was asked of files: name, range, and how many bytes were sent.
    pub(crate) fn asked_for(&self, file: &str) -> Vec<Asked> {
        let log = self.content.log.lock().unwrap();
        log.iter().filter(|asked| asked.file.as_deref() == Some(file)).cloned().collect()
    }

    /// The server that large files are redirected to.
    pub(crate) fn store(&self) -> String {
        self.content.store.lock().unwrap().clone()
    }

    /// How many bytes of a file were sent in all.
    pub(crate) fn sent(&self, file: &str) -> u64 {
        self.asked_for(file).iter().map(|asked| asked.sent.load(Ordering::Relaxed)).sum()
    }
}

/// Serves from a thread of its own. Returns the address.
pub(crate) fn serve(content: Arc<Content>, is_store: bool, port: u16) -> String {
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            let listener = listener.tap_io(|stream| stream.set_nodelay(true).unwrap());
            let answer = move |State(content): State<Arc<Content>>, request: Request| async move {
                answer(&content, &request, is_store)
            };
            axum::serve(listener, Router::new().fallback(answer).with_state(content)).await.unwrap();
        });
    });
    address
}

fn answer(content: &Content, request: &Request, is_store: bool) -> Response<Body> {
    let path = percent_decode(request.uri().path());
    let query = request.uri().query().unwrap_or_default().to_owned();
    let range = request.headers().get("range").map(|value| value.to_str().unwrap().to_owned());
    let mut asked = Asked {
        path: path.clone(),
        query: query.clone(),
        range,
        headers: request.headers().clone(),
        file: None,
        number: 0,
        from_store: is_store,
        sent: Arc::default(),
    };
    let parts: Vec<_> = path.split('/').skip(1).collect();
    let from = |index: usize| parts[index.min(parts.len())..].join("/");
    match parts.as_slice() {
        ["store", ..] => asked.file = Some(from(1)),
        ["web", ..] => asked.file = Some(from(1)),
        ["datasets" | "models", _, _, "resolve", ..] => asked.file = Some(from(5)),
        [_, _, "resolve", ..] => asked.file = Some(from(4)),
        _ => {}
    }
    {
        let mut log = content.log.lock().unwrap();
        let same = |other: &&Asked| other.file.is_some() && other.file == asked.file && other.from_store == is_store;
        asked.number = log.iter().filter(same).count();
        log.push(asked.clone());
    }
    let fault = (content.behaviour)(&asked);
    if let Some(Fault::Status(status, name, value, body)) = fault {
        let builder = Response::builder().status(status);
        let builder = if name.is_empty() { builder } else { builder.header(name, value) };
        return builder.body(Body::from(body)).unwrap();
    }
    if let Some(Fault::Echo(status)) = fault {
        let sent = ["x-amz-security-token", "authorization"].map(|name| asked.headers.get(name));
        let sent: Vec<_> = sent.into_iter().flatten().map(|value| value.to_str().unwrap()).collect();
        return refuse(status, &format!("who sends {} may not read this", sent.join(" and ")));
    }
    match parts.as_slice() {
        ["api", "v1", kind, _, _, "repo", "files" | "tree"] => model_scope_list(content, &query, *kind == "datasets"),
        ["api", _, _, _, "revision", ..] => json(&format!("{{\"id\":\"x\",\"sha\":\"{}\"}}", content.head()), None),
        ["api", _, _, _, "tree", commit, ..] => match content.later(commit) {
            Some((_, files)) => hugging_face_list(content, &files, request, &query),
            None => hugging_face_list(content, &content.files, request, &query),
        },
        _ => match &asked.file {
            Some(file) => {
                let revision = parts.iter().position(|part| *part == "resolve").and_then(|at| parts.get(at + 1));
                let stored = query.split('&').find_map(|pair| pair.strip_prefix("commit="));
                match stored.or(revision.copied()).and_then(|revision| content.later(revision)) {
                    Some((commit, files)) => bytes_of(content, commit, &files, &asked, file, fault),
                    None => bytes_of(content, COMMIT, &content.files, &asked, file, fault),
                }
            }
            None => refuse(404, "Not Found"),
        },
    }
}

fn refuse(status: u16, text: &str) -> Response<Body> {
    Response::builder().status(status).body(Body::from(text.to_owned())).unwrap()
}

fn json(text: &str, link: Option<String>) -> Response<Body> {
    let builder = Response::builder().header("content-type", "application/json");
    let builder = link.into_iter().fold(builder, |builder, link| builder.header("link", link));
    builder.body(Body::from(text.to_owned())).unwrap()
}

fn number_of(query: &str, name: &str) -> usize {
    let value = query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

fn hugging_face_list(content: &Content, files: &Files, request: &Request, query: &str) -> Response<Body> {
    let mut entries: Vec<String> = vec![r#"{"type":"directory","path":"folder","size":0,"oid":"0"}"#.to_owned()];
    let named = files.iter();
    let others = content.listed_names.iter().map(|(name, file)| (name, &content.files[file]));
    for (name, (bytes, sha256)) in named.chain(others) {
        let name = serde_json::to_string(name).unwrap();
        let (size, blob) = (bytes.len(), git_blob(bytes));
        entries.push(if size >= LARGE_BYTES {
            format!(
                r#"{{"type":"file","oid":"0","size":{size},"path":{name},"lfs":{{"oid":"{sha256}","size":{size},"pointerSize":134}}}}"#
            )
        } else {
            format!(r#"{{"type":"file","oid":"{blob}","size":{size},"path":{name}}}"#)
        });
    }
    let start = number_of(query, "cursor");
    let end = (start + content.page).min(entries.len());
    let path = request.uri().path();
    // As mirrors do: the next page is named with the address of the hub itself.
    let link = (end < entries.len())
        .then(|| format!("<https://huggingface.co{path}?recursive=true&expand=false&cursor={end}>; rel=\"next\""));
    json(&format!("[{}]", entries[start..end].join(",")), link)
}

fn model_scope_list(content: &Content, query: &str, is_dataset: bool) -> Response<Body> {
    let revision = query.split('&').find_map(|pair| pair.strip_prefix("Revision=")).unwrap_or_default();
    if !["master", COMMIT].contains(&revision) {
        return json(r#"{"Code":200,"Data":{"Files":null,"LatestCommitter":null},"Message":"","Success":true}"#, None);
    }
    let named = content.files.iter();
    let others = content.listed_names.iter().map(|(name, file)| (name, &content.files[file]));
    let entries: Vec<_> = named
        .chain(others)
        .map(|(name, (bytes, sha256))| {
            let (name, size) = (serde_json::to_string(name).unwrap(), bytes.len());
            format!(
                r#"{{"Path":{name},"Name":{name},"Type":"blob","Size":{size},"Sha256":"{sha256}","Revision":"{COMMIT}"}}"#
            )
        })
        .collect();
    let (start, end) = match is_dataset {
        true => {
            let (page, size) = (number_of(query, "PageNumber"), number_of(query, "PageSize"));
            (((page - 1) * size).min(entries.len()), (page * size).min(entries.len()))
        }
        false => (0, entries.len()),
    };
    let files = entries[start..end].join(",");
    let short = &COMMIT[..8];
    json(
        &format!(
            r#"{{"Code":200,"Data":{{"Files":[{{"Path":"d","Type":"tree"}}{}{files}],"LatestCommitter":{{"Id":"","ShortId":"{short}"}}}},"Message":"success","Success":true}}"#,
            if files.is_empty() { "" } else { "," }
        ),
        None,
    )
}

fn bytes_of(
    content: &Content,
    commit: &str,
    files: &Files,
    asked: &Asked,
    file: &str,
    fault: Option<Fault>,
) -> Response<Body> {
    let Some((bytes, sha256)) = files.get(file) else {
        return Response::builder()
            .status(404)
            .header("x-error-code", "EntryNotFound")
            .body(Body::from("Entry not found"))
            .unwrap();
    };
    let is_resolve = asked.path.contains("/resolve/");
    if is_resolve && bytes.len() >= LARGE_BYTES && !asked.path.starts_with("/models/") {
        let store = content.store.lock().unwrap().clone();
        return Response::builder()
            .status(302)
            .header(
                "location",
                format!("{store}/store/{}?X-Amz-Signature=SIGNATURE&commit={commit}", percent_encode(file)),
            )
            .header("x-repo-commit", commit)
            .header("x-linked-etag", format!("\"{sha256}\""))
            .header("x-linked-size", bytes.len())
            .body(Body::empty())
            .unwrap();
    }
    let bytes = match &fault {
        Some(Fault::Bytes(other)) => Bytes::from(other.clone()),
        _ => bytes.clone(),
    };
    let etag = match fault {
        Some(Fault::Etag(etag)) => etag.to_owned(),
        _ => format!("\"{}\"", &sha256[..16]),
    };
    let is_ignored = matches!(fault, Some(Fault::IgnoreRange | Fault::IgnoreRangeAndCutAfter(_)));
    let is_stale = asked.headers.get("if-range").is_some_and(|tag| tag.to_str().unwrap() != etag);
    let range = asked.range.as_deref().filter(|_| !is_ignored && !is_stale);
    let mut builder = Response::builder().header("etag", etag).header("accept-ranges", "bytes");
    let mut part = bytes.clone();
    if let Some(range) = range {
        let (start, end) = range.strip_prefix("bytes=").unwrap().split_once('-').unwrap();
        let start: usize = start.parse().unwrap();
        let end = end.parse().map_or(bytes.len(), |end: usize| (end + 1).min(bytes.len()));
        if start >= bytes.len() {
            return builder
                .status(416)
                .header("content-range", format!("bytes */{}", bytes.len()))
                .body(Body::empty())
                .unwrap();
        }
        part = bytes.slice(start..end);
        builder = builder.status(206).header("content-range", format!("bytes {start}-{}/{}", end - 1, bytes.len()));
    }
    let (limit, stalls) = match fault {
        Some(Fault::CutAfter(limit) | Fault::IgnoreRangeAndCutAfter(limit)) => (Some(limit), false),
        Some(Fault::StallAfter(limit)) => (Some(limit), true),
        _ => (None, false),
    };
    if matches!(fault, Some(Fault::Longer)) {
        part = [&part[..], b"and more"].concat().into();
    } else {
        builder = builder.header("content-length", part.len());
    }
    let whole = part.len();
    if let Some(limit) = limit {
        part.truncate(limit);
    }
    builder.body(body(part, limit.is_some_and(|limit| limit < whole), stalls, content, &asked.sent)).unwrap()
}

fn body(part: Bytes, ends_badly: bool, stalls: bool, content: &Content, sent: &Arc<AtomicU64>) -> Body {
    const CHUNK_BYTES: usize = 64 << 10;
    let rate = content.rate_bytes.load(Ordering::Relaxed);
    let sent = Arc::clone(sent);
    let chunks = stream::unfold(0, move |at| {
        let (part, sent) = (part.clone(), Arc::clone(&sent));
        async move {
            if at >= part.len() {
                return None;
            }
            let chunk = part.slice(at..(at + CHUNK_BYTES).min(part.len()));
            if rate > 0 {
                tokio::time::sleep(Duration::from_secs_f64(chunk.len() as f64 / rate as f64)).await;
            }
            sent.fetch_add(chunk.len() as u64, Ordering::Relaxed);
            Some((Ok::<_, std::io::Error>(chunk.clone()), at + chunk.len()))
        }
    });
    let end = stream::once(async move {
        if stalls {
            std::future::pending::<()>().await;
        }
        // What was sent before must not be lost with the connection.
        tokio::time::sleep(Duration::from_millis(20)).await;
        Err::<Bytes, _>(std::io::Error::other("cut"))
    });
    if ends_badly { Body::from_stream(chunks.chain(end)) } else { Body::from_stream(chunks) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&sha2::Sha256::digest(bytes))
}

pub(crate) fn git_blob(bytes: &[u8]) -> String {
    let mut hasher = sha1::Sha1::new_with_prefix(format!("blob {}\0", bytes.len()));
    hasher.update(bytes);
    hex(&hasher.finalize())
}

fn percent_decode(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8().unwrap().into_owned()
}

fn percent_encode(text: &str) -> String {
    const SET: &percent_encoding::AsciiSet = &percent_encoding::NON_ALPHANUMERIC.remove(b'/');
    percent_encoding::utf8_percent_encode(text, SET).to_string()
}

/// Bytes that look like nothing, the same for the same seed.
pub(crate) fn noise(seed: u64, count: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(count + 8);
    while bytes.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(count);
    bytes
}
