//! Files of other machines: listed, pinned, fetched in ranges over several connections, resumed, verified.
//!
//! A [`Source`] is resolved to a pin once; from then on the pin says which bytes are meant. What is fetched is complete
//! and has the size and the digest that were promised, or it is an error; what was there of it is kept, and gone on with.
//! Nothing here is shown or written that holds a token.

mod cache;
mod client;
mod credentials;
mod digest;
mod error;
mod fetcher;
mod names;
mod part;
mod patience;
mod redact;
mod remote;
mod settings;
mod source;
mod transfer;

pub use digest::Digest;
pub use error::Error;
pub use fetcher::{Fetcher, Order, Report, Unwatched, Watch};
pub use remote::RemoteFile;
pub use settings::{Settings, Token, Tuning, VARIABLES};
pub use source::{Hub, Repository, Source, SourceError};
