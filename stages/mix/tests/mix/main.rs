//! The stage as the engine runs it: samples of several inputs in, one samples folder and figures out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod cases;
mod model;

use std::{
    fs,
    path::{Path, PathBuf},
};

use pipe_samples::{FILE_NAME, Sample, Samples, Writer};
use pipe_stage::{Digest, Failure, Level};
use pipe_trial::Trial;
use serde_json::{Value, json};
use stage_mix::Mix;

/// What came of a run.
struct Mixed {
    /// The first id of each sample: the number that its source gave it.
    rows: Vec<u32>,
    figures: Value,
    log: Vec<String>,
    bytes: Vec<u8>,
}

/// A samples folder: row `row` has `row % 7 + 1` ids, all of them `first + row`.
fn write_source(folder: &Path, first: u32, rows: u32) {
    fs::create_dir_all(folder).unwrap();
    let mut writer = Writer::create(folder).unwrap();
    for row in 0..rows {
        let ids = vec![first + row; row as usize % 7 + 1];
        writer.write(Sample { labels: ids.iter().map(|id| *id as i32).collect(), input_ids: ids }.view()).unwrap();
    }
    writer.finish().unwrap();
}

fn run_on(inputs: Vec<(&str, PathBuf)>, files: &[&str], config: &Value) -> Result<Mixed, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let trial = inputs.iter().fold(Trial::new(folder.path()), |trial, (name, path)| trial.input(name, path));
    let file =
        |trial: Trial, name: &&str| trial.user_file(&format!("inputs.{name}"), Path::new("/rows"), Digest::of(b""));
    let ran = files.iter().fold(trial, file).run::<Mix>(config.clone()).done()?;
    let log = ran.said(Level::Info).into_iter().chain(ran.said(Level::Warn)).map(str::to_owned).collect();
    let mixed = Samples::load(&ran.output()).unwrap();
    let rows = mixed.iter().map(|sample| sample.input_ids[0]).collect();
    let bytes = fs::read(ran.output().join(FILE_NAME)).unwrap();
    Ok(Mixed { rows, figures: ran.figures(), log, bytes })
}

/// Mixes sources of so many rows; rows of source `index` are numbered from `index * 10_000`.
fn mix(sources: &[(&str, u32)], config: Value) -> Result<Mixed, Failure> {
    let folder = tempfile::tempdir().unwrap();
    let mut inputs = Vec::new();
    for (index, (name, rows)) in sources.iter().enumerate() {
        let path = folder.path().join(index.to_string());
        write_source(&path, index as u32 * 10_000, *rows);
        inputs.push((*name, path));
    }
    run_on(inputs, &[], &config)
}

/// Rows of source `index`, in the order in which they came, numbered from 0.
fn of_source(mixed: &Mixed, index: u32) -> Vec<u32> {
    mixed.rows.iter().filter(|row| **row / 10_000 == index).map(|row| row % 10_000).collect()
}

fn problems(inputs: &[&str], config: Value) -> Vec<String> {
    let found = pipe_trial::problems::<Mix>(config, inputs).into_iter();
    found.map(|(path, message, help)| format!("{path}: {message} ({})", help.unwrap_or_default())).collect()
}
