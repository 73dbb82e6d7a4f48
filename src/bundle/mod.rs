//! Bundles: a run in one file, to show it, keep it, or make it again elsewhere.
//!
//! A bundle is a tar archive, compressed by zstd, that every `tar` can unpack:
//!
//! ```text
//! manifest                  the digest, size and path of every other entry, in their order
//! experiment.json           the run: its stages with keys, digests, figures, what they ran on
//! logs/STAGE.log            what the stages said
//! objects/DIGEST            lists of the files of artifacts; and those files, where they are shared
//! project/pipeline.yaml     the resolved pipeline, which runs as it is
//! project/...               the user's own files, where that pipeline names them
//! ```
//! The digest of `manifest` is the name of the experiment.
//!
//! # Rules
//! - The same run gives the same bytes: no times of files, no owners, one order, one way of compressing.
//! - A bundle is foreign: [`Reader`] holds it to its manifest byte by byte, header by header, and within [`Limits`]. It
//!   hands out nothing whose path could leave a folder, and it needs memory for the manifest and one buffer.
//! - No value of an environment variable is in a bundle, nor anything that a guess could be checked with.

mod contents;
mod error;
mod experiment;
mod gather;
mod layout;
mod limits;
mod logs;
mod path;
mod reader;
mod secrets;
pub(crate) mod tar_head;
mod unpack;
mod writer;

pub use contents::{Contents, Entry, UNPACKED};
pub use error::{BundleError, PathProblem, ShareError};
pub use experiment::{Experiment, ExperimentStage};
pub(crate) use gather::device;
pub use gather::{Artifacts, Gathered, Request};
pub use limits::Limits;
pub use reader::Reader;
pub use unpack::Unpacked;
pub use writer::Writer;

/// The first entry.
pub(crate) const MANIFEST: &str = "manifest";

/// The entry that tells of the run.
const EXPERIMENT: &str = "experiment.json";

#[cfg(test)]
mod tests;
