//! Why something cannot be fetched, and what to do about it.
//!
//! No message holds a token, or the query of an address: signed addresses carry theirs there.

use std::{io, path::PathBuf, time::Duration};

use crate::Digest;

/// Why something cannot be fetched.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reader asked to stop. What is there is kept.
    #[error("stopped on request")]
    Cancelled,
    /// The machine cannot make connections at all.
    #[error("cannot set up connections: {0}")]
    Setup(String),
    /// An environment variable holds what it cannot.
    #[error("the environment variable {name} is `{value}`, which is no address")]
    Address {
        /// The variable.
        name: &'static str,
        /// What it holds.
        value: String,
    },
    /// The other machine was not reached.
    #[error("cannot reach {address}: {reason}")]
    Unreachable {
        /// Without its query.
        address: String,
        /// The innermost cause.
        reason: String,
    },
    /// The connection ended before all was there.
    #[error("{address} was cut off after {received} of {expected} bytes")]
    Cut {
        /// Without its query.
        address: String,
        /// Bytes that came of this range.
        received: u64,
        /// Bytes that were asked for.
        expected: u64,
    },
    /// Nothing came any more.
    #[error("{address} sent nothing for {} s", after.as_secs_f32())]
    Stalled {
        /// Without its query.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// An answer that is none.
    #[error("{address} answers {status}{}", said(message))]
    Status {
        /// Without its query.
        address: String,
        /// The HTTP status.
        status: u16,
        /// A word for it that hubs give: `GatedRepo`.
        code: String,
        /// What the server says, first line.
        message: String,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
        /// Whether a redirection led there: its address may have expired, and a new one may work.
        redirected: bool,
    },
    /// A licence must be accepted, or a token is needed.
    #[error("{repository} is gated: {}", if *with_token { "this token may not read it" } else { "it is not given without a token" })]
    Gated {
        /// `org/name`
        repository: String,
        /// Where the licence is.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
        /// The variable that holds the token.
        variable: &'static str,
    },
    /// A token is needed, or there is no such repository: hubs do not tell which.
    #[error("{repository} does not exist, or is private{}", if *with_token { " and this token may not read it" } else { "" })]
    NotForUs {
        /// `org/name`
        repository: String,
        /// The page of it.
        page: String,
        /// Whether a token was sent.
        with_token: bool,
        /// The variable that holds the token.
        variable: &'static str,
    },
    /// The token is not valid.
    #[error("{host} refuses the token")]
    Token {
        /// The hub.
        host: String,
        /// The variable that holds the token.
        variable: &'static str,
    },
    /// There is no such repository, revision, file or bucket.
    #[error("{what} does not exist")]
    Missing {
        /// What, in words: `the revision \`v2\` of Qwen/Qwen3-1.7B`.
        what: String,
        /// What to look at.
        hint: &'static str,
    },
    /// What was pinned is no longer what the name stands for, and cannot be asked for otherwise.
    #[error("{name} is no longer what is pinned: its list of files had the digest {pinned}, now {found}")]
    Moved {
        /// The source.
        name: String,
        /// The pin.
        pinned: String,
        /// The pin that it would get.
        found: String,
    },
    /// The answer is not what the protocol says.
    #[error("{address} answers what pipe cannot read: {reason}")]
    Answer {
        /// Without its query.
        address: String,
        /// What is wrong.
        reason: String,
    },
    /// A file name that could do harm, or that no artifact can hold.
    #[error("the server names a file {name:?}, which {reason}")]
    Name {
        /// The name.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// Two names that cannot stand side by side.
    #[error("the files {one:?} and {other:?} {reason}")]
    Names {
        /// A file.
        one: String,
        /// Another file.
        other: String,
        /// Why not both.
        reason: &'static str,
    },
    /// The file is not as long as it was said to be.
    #[error("{path}: {address} has {found} bytes, the list of files says {expected}")]
    Size {
        /// The file.
        path: String,
        /// Without its query.
        address: String,
        /// What the list says.
        expected: u64,
        /// What the server has.
        found: u64,
    },
    /// The bytes are not those that were promised, twice.
    #[error("{path} has the {} {found}, {promised_by} says {}", expected.algorithm(), expected.hex())]
    Mismatch {
        /// The file.
        path: String,
        /// What it should have.
        expected: Digest,
        /// What it has.
        found: String,
        /// Who says so.
        promised_by: &'static str,
    },
    /// The file changed on the server, again and again.
    #[error("{path} changes on the server while it is fetched")]
    Changing {
        /// The file.
        path: String,
    },
    /// There is no room.
    #[error("{} has {free_bytes} bytes free, {needed_bytes} are needed", folder.display())]
    Space {
        /// Where the files would be.
        folder: PathBuf,
        /// What is missing yet.
        needed_bytes: u64,
        /// What there is.
        free_bytes: u64,
    },
    /// No network is allowed, and the cache does not have it.
    #[error("offline ({variable} is set), and {missing}")]
    Offline {
        /// Why offline.
        variable: &'static str,
        /// What is missing, where.
        missing: String,
        /// What to do.
        hint: String,
    },
    /// The object store says no.
    #[error("cannot read {address}: {reason}")]
    Store {
        /// The bucket and key.
        address: String,
        /// What it says.
        reason: String,
        /// Whether trying again can help.
        transient: bool,
    },
    /// A file of this machine cannot be written or read.
    #[error("cannot {doing} {}", path.display())]
    File {
        /// `read` or `write`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It was tried several times.
    #[error("gave up on {path} after {attempts} attempts without a new byte")]
    Attempts {
        /// The file, or the address.
        path: String,
        /// How often.
        attempts: u32,
        /// What happened last.
        source: Box<Error>,
    },
}

fn said(message: &str) -> String {
    if message.is_empty() { String::new() } else { format!(": {message}") }
}

impl Error {
    pub(crate) fn read(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing: "read", path, source }
    }

    pub(crate) fn write(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { doing: "write", path, source }
    }

    /// All texts that a server may have had a hand in, also of the causes.
    pub(crate) fn texts(&mut self) -> Vec<&mut String> {
        match self {
            Self::Attempts { path, source, .. } => {
                let mut texts = source.texts();
                texts.push(path);
                texts
            }
            Self::Unreachable { address, reason }
            | Self::Answer { address, reason }
            | Self::Store { address, reason, .. } => vec![address, reason],
            Self::Cut { address, .. } | Self::Stalled { address, .. } => vec![address],
            Self::Status { address, code, message, .. } => vec![address, code, message],
            Self::Missing { what, .. } => vec![what],
            Self::Name { name, .. } => vec![name],
            Self::Names { one, other, .. } => vec![one, other],
            Self::Size { path, address, .. } => vec![path, address],
            Self::Mismatch { path, .. } | Self::Changing { path } => vec![path],
            Self::Moved { name, .. } => vec![name],
            Self::Setup(text) => vec![text],
            // What the pipeline and this machine say.
            Self::Gated { .. }
            | Self::NotForUs { .. }
            | Self::Token { .. }
            | Self::Offline { .. }
            | Self::Address { .. }
            | Self::Space { .. }
            | Self::File { .. }
            | Self::Cancelled => Vec::new(),
        }
    }

    /// Whether the same request may succeed later.
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Stalled { .. } => true,
            Self::Status { status, redirected, .. } => {
                matches!(status, 408 | 425 | 429 | 500 | 502 | 503 | 504) || (*redirected && *status == 403)
            }
            Self::Store { transient, .. } => *transient,
            _ => false,
        }
    }

    /// How long the server asks to wait.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// Whether the surroundings are to blame, and not the pipeline: the network, the disk, a missing token.
    pub fn is_environment(&self) -> bool {
        match self {
            Self::Attempts { source, .. } => source.is_environment(),
            Self::Mismatch { .. }
            | Self::Name { .. }
            | Self::Names { .. }
            | Self::Missing { .. }
            | Self::Moved { .. } => false,
            Self::Size { .. } | Self::Changing { .. } | Self::Cancelled => false,
            _ => true,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Attempts { source, .. } => return source.hint(),
            Self::Setup(_) => {
                "install the package ca-certificates, or let SSL_CERT_FILE name a file of certificates".to_owned()
            }
            Self::Address { .. } => "write it with its scheme, as https://HOST".to_owned(),
            Self::Unreachable { .. } | Self::Cut { .. } | Self::Stalled { .. } => {
                "what is there is kept: run again to go on; where the hub cannot be reached, set HTTPS_PROXY, or HF_ENDPOINT \
                 to a mirror, or take the model from ModelScope with ms://ORG/NAME"
                    .to_owned()
            }
            Self::Status { status: 429, .. } => "too many requests: wait, or set a token, then run again to go on".to_owned(),
            Self::Status { status, .. } if *status >= 500 => "the server has a problem: run again later to go on".to_owned(),
            Self::Gated { page, with_token: false, variable, .. } => {
                format!("accept the licence at {page}, then set {variable} to a token of your account")
            }
            Self::Gated { page, variable, .. } => format!(
                "accept the licence at {page} with the account of the token in {variable}; a fine-grained token needs the \
                 right to read gated repositories"
            ),
            Self::NotForUs { page, with_token: false, variable, .. } => {
                format!("check the name at {page}; if it is private, set {variable} to a token that may read it")
            }
            Self::NotForUs { page, variable, .. } => {
                format!("check the name at {page}, and whether the account of the token in {variable} sees it")
            }
            Self::Token { variable, .. } => {
                format!("set {variable} to a valid token, or to none: what is public needs none")
            }
            Self::Missing { hint, .. } => (*hint).to_owned(),
            Self::Moved { .. } => {
                "run with --refresh and the name of the stage to take what is there now, and commit pipe.lock".to_owned()
            }
            Self::Name { .. } => {
                "nothing is taken from a list with such a name: take another revision, or the same from another server"
                    .to_owned()
            }
            Self::Names { .. } => "leave one out with `exclude`, or take what is needed with `include`".to_owned(),
            Self::Size { .. } | Self::Mismatch { promised_by: "the list of files", .. } => {
                "the server or a mirror between is at fault: try again later, or from another HF_ENDPOINT".to_owned()
            }
            Self::Mismatch { .. } => "correct the digest, or the address: the server has other bytes now".to_owned(),
            Self::Changing { .. } => "try again when nobody writes to it".to_owned(),
            Self::Space { .. } => {
                "free some space there, or set PIPE_HOME to a folder on another disk; what is there is kept".to_owned()
            }
            Self::Offline { hint, .. } => hint.clone(),
            Self::Store { .. } => {
                "the variables AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION and AWS_ENDPOINT_URL say how to reach it"
                    .to_owned()
            }
            Self::Cancelled | Self::Status { .. } | Self::Answer { .. } | Self::File { .. } => return None,
        })
    }
}
