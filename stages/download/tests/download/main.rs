//! The kind `download`: what comes in is what was there, or an error.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod files;
mod sources;

use std::path::Path;

use pipe_stage::{Digest, Failure};
use pipe_trial::Trial;
use stage_download::{Config, Download};

fn config(source: &str) -> Config {
    Config { source: source.to_owned(), include: None, exclude: Vec::new(), sha256: None, blake3: None }
}

/// Runs the stage on the user's file or folder at `path`, whose digest the engine found to be `digest`.
fn download(config: &Config, path: &Path, digest: Digest, output: &Path) -> Result<(), Failure> {
    Trial::new(output).user_file("source", path, digest).run_config::<Download>(config).result
}

fn message(result: Result<(), Failure>) -> String {
    result.unwrap_err().chain().join(": ")
}
