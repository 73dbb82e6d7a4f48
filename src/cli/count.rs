//! Counts and amounts on the command line.

use std::num::NonZeroUsize;

use pipe_stage::{Refused, parse_bytes};

/// A whole number from 1.
pub(super) fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a whole number from 1".to_owned())
}

/// A whole number from 0.
pub(super) fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write a whole number from 0".to_owned())
}

/// An amount of memory or of a disk, in bytes.
pub(super) fn size(text: &str) -> Result<u64, String> {
    parse_bytes(text).map_err(|Refused(message, help)| format!("{message}; write it {help}"))
}
