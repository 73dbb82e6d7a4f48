//! The stage as the engine runs it: samples of several inputs in, one samples folder and figures out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod cases;
mod model;

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use pipe_samples::{FILE_NAME, Sample, Samples, Writer};
use pipe_stage::{
    Artifact, Context, Digest, Event, Failure, Job, Kind, PROTOCOL, Problems, Resources, Stage, Validate,
};
use serde_json::{Value, json};
use stage_mix::{Config, Mix};

#[derive(Clone, Default)]
struct Sink(Arc<Mutex<Vec<u8>>>);

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

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
    let output = folder.path().join("output");
    fs::create_dir_all(output.join("out")).unwrap();
    let artifact = |path| Artifact { path, digest: Digest::of(b"") };
    let job = Job {
        protocol: PROTOCOL,
        kind: Mix::KIND.to_owned(),
        stage: "mixed".to_owned(),
        config: config.clone(),
        inputs: inputs.into_iter().map(|(name, path)| (name.to_owned(), vec![artifact(path)])).collect(),
        user_files: files.iter().map(|name| (format!("inputs.{name}"), artifact(PathBuf::from("/rows")))).collect(),
        pins: [].into(),
        output: output.clone(),
        work: folder.path().join("work"),
        resume: folder.path().join("resume"),
        resources: Resources::default(),
    };
    let sink = Sink::default();
    let context = Context::new(job, Box::new(sink.clone()), Arc::default());
    Mix::run(&serde_json::from_value(config.clone()).unwrap(), &context)?;
    let (mut figures, mut log) = (json!({}), Vec::new());
    for line in String::from_utf8(sink.0.lock().unwrap().clone()).unwrap().lines() {
        match serde_json::from_str(line).unwrap() {
            Event::Figure { name, value } => figures[name] = value,
            Event::Log { message, .. } => log.push(message),
            _ => {}
        }
    }
    let mixed = Samples::load(&output.join("out")).unwrap();
    let rows = mixed.iter().map(|sample| sample.input_ids[0]).collect();
    Ok(Mixed { rows, figures, log, bytes: fs::read(output.join("out").join(FILE_NAME)).unwrap() })
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
    let mut problems = Problems::default();
    let inputs: BTreeSet<String> = inputs.iter().map(|input| (*input).to_owned()).collect();
    serde_json::from_value::<Config>(config).unwrap().validate(&inputs, &mut problems);
    let found = problems.into_inner().into_iter();
    found.map(|(path, message, help)| format!("{path}: {message} ({})", help.unwrap_or_default())).collect()
}
