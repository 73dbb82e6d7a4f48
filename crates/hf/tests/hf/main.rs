//! Hugging Face directories: what their libraries write is read, what contradicts itself is refused.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod adapter;
mod checkpoint;
mod config;
mod files;
mod writer;

use std::path::{Path, PathBuf};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}
