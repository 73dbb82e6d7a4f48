//! The kind `download`: what comes in is what was there, or an error.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod files;
mod sources;

use std::{fs, path::Path, sync::Arc};

use pipe_stage::{Artifact, Context, Digest, Failure, Job, PROTOCOL, Resources, Stage};
use stage_download::{Config, Download};

fn config(source: &str) -> Config {
    Config { source: source.to_owned(), include: None, exclude: Vec::new(), sha256: None, blake3: None }
}

/// Runs the stage on the user's file or folder at `path`, whose digest the engine found to be `digest`.
fn download(config: &Config, path: &Path, digest: Digest, output: &Path) -> Result<(), Failure> {
    fs::create_dir_all(output.join("out")).unwrap();
    let job = Job {
        protocol: PROTOCOL,
        kind: "download".to_owned(),
        stage: "corpus".to_owned(),
        config: serde_json::to_value(config).unwrap(),
        inputs: [].into(),
        user_files: [("source".to_owned(), Artifact { path: path.to_owned(), digest })].into(),
        pins: [].into(),
        output: output.to_owned(),
        work: output.to_owned(),
        resume: output.to_owned(),
        resources: Resources::default(),
    };
    Download::run(config, &Context::new(job, Box::new(std::io::sink()), Arc::default()))
}

fn message(result: Result<(), Failure>) -> String {
    result.unwrap_err().chain().join(": ")
}
