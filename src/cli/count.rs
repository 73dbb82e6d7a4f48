//! Counts on the command line.

use std::num::NonZeroUsize;

/// A whole number from 1.
pub(super) fn at_least_one(text: &str) -> Result<NonZeroUsize, String> {
    text.parse().map_err(|_| "write a whole number from 1".to_owned())
}

/// A whole number from 0.
pub(super) fn whole(text: &str) -> Result<usize, String> {
    text.parse().map_err(|_| "write a whole number from 0".to_owned())
}
