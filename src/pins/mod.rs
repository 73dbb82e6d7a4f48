//! What the names of things on other machines stand for: a branch on a hub is a commit, a folder of a bucket is a list of
//! objects with a digest. A run asks once and writes it to `pipe.lock` beside the pipeline, which the users commit; from
//! then on the same pipeline takes the same bytes until somebody says `--refresh`.
//!
//! The file is one for all pipelines of a folder, which therefore take the same. Plans only read it; the one place that
//! asks, and so uses a network, is [`settle`].

mod file;
mod settle;
#[cfg(test)]
mod tests;

pub use file::{FILE_NAME, Pins, PinsError};
pub use settle::{Cause, SettleError, Settled, Told, settle};
