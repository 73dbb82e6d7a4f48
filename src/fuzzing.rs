//! What must hold of the readers for any bytes whatsoever. The fuzz targets in `fuzz/` call these functions; the tests
//! below call them with the seeds and with every input that once failed.
//!
//! Compiled for the two only.

use std::{
    io::Write,
    path::{Component, Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use pipe_stage::{Job, manifest::Manifest};
use pipe_yaml::{Node, Parsed, Span, Value};

use crate::{
    cache, config,
    config::{ConfigError, Pipeline, Source},
    graph::Graph,
    registry,
    report::{Human, JsonLines},
    runs::{RunRecord, resolved_yaml, to_yaml},
    scheduler,
};

mod bundle;

pub use bundle::bundle;

/// A pipeline file. Its comments `# set PATH=VALUE` are what the command line puts over it.
///
/// Whatever is wrong with it can be shown without steering the terminal. A valid one, written out with everything
/// filled in, is read back as the same.
pub fn pipeline(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let set = text.lines().filter_map(|line| line.strip_prefix("# set ")?.split_once('='));
    let overrides: Vec<_> = set.map(|(path, value)| (path.to_owned(), value.to_owned())).collect();
    let read = |text: &str, overrides: &[(String, String)]| {
        config::parse(Source::new("p.yaml", text), PathBuf::from("/folder"), overrides, registry::KINDS)
    };
    let pipeline = match read(text, &overrides) {
        Ok(pipeline) => pipeline,
        Err(error) => return check_error(&error),
    };
    if let Err(error) = Graph::new(&pipeline) {
        check_error(&error);
    }
    let resolved = resolved_yaml(&pipeline);
    match read(&resolved, &[]) {
        Ok(again) => {
            assert_eq!(meaning(&again), meaning(&pipeline));
            assert_eq!(resolved_yaml(&again), resolved);
        }
        Err(error) => panic!("{}\n{resolved}", config::render(&error, false, 100)),
    }
}

/// All of a pipeline that a run depends on.
fn meaning(pipeline: &Pipeline) -> Vec<String> {
    let stages = pipeline.stages.values().map(|stage| {
        let inputs: Vec<_> = stage
            .inputs
            .iter()
            .map(|(port, taken)| {
                let taken: Vec<_> = taken.iter().map(|input| (input.stage.as_str(), input.output.as_str())).collect();
                (port, taken)
            })
            .collect();
        format!(
            "{} {} {} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {:?} {inputs:?}",
            stage.name,
            stage.declaration.kind,
            stage.config,
            stage.user_files,
            stage.references,
            stage.outputs,
            stage.environment,
            stage.resources,
            stage.retries,
            stage.timeout,
            stage.checkout,
        )
    });
    std::iter::once(pipeline.name.clone()).chain(stages).collect()
}

fn check_error(error: &ConfigError) {
    for width in [10, 110] {
        let shown = config::render(error, false, width);
        assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
    }
    config::render(error, true, 80);
    for problem in error.to_json().as_array().into_iter().flatten() {
        assert!(problem["line"].as_u64().is_none_or(|line| line > 0));
        assert!(problem["message"].as_str().is_some_and(|message| !message.is_empty()));
    }
}

/// A YAML document: every place is in the text and at the start of a character, the bounds hold, and what it says as
/// JSON can be written as YAML and read back.
pub fn yaml(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Parsed { root, problems } = pipe_yaml::parse_with_recovery(text);
    for span in problems.iter().filter_map(|problem| problem.span) {
        check_span(text, span);
    }
    assert!(root.is_some() || !problems.is_empty(), "nothing was read, and nothing is wrong");
    let Some(root) = root else { return };
    let nodes = check_node(text, &root, 0);
    assert!(nodes <= pipe_yaml::MAX_NODES, "{nodes} nodes");
    for problem in pipe_yaml::deserialize::<Everything>(&root).err().into_iter().flatten() {
        problem.span.into_iter().for_each(|span| check_span(text, span));
    }
    let value = root.to_json();
    let written = to_yaml(&value);
    assert!(!written.is_empty(), "{value}");
    if problems.is_empty() && written.len() <= pipe_yaml::MAX_BYTES {
        match pipe_yaml::parse(&written) {
            Ok(again) => assert_eq!(again.to_json(), value, "{written}"),
            Err(problems) => panic!("{problems:?}\n{written}"),
        }
    }
}

fn check_span(text: &str, span: Span) {
    assert!(span.start <= span.end, "{span:?}");
    assert!(text.get(span.start..span.end).is_some(), "{span:?} of {} bytes", text.len());
}

fn check_node(text: &str, node: &Node, depth: usize) -> usize {
    assert!(depth <= pipe_yaml::MAX_DEPTH);
    check_span(text, node.span);
    assert!(!node.describe().contains(char::is_control), "{:?}", node.describe());
    match &node.value {
        Value::Scalar { .. } => 1,
        Value::Sequence(items) => 1 + items.iter().map(|item| check_node(text, item, depth + 1)).sum::<usize>(),
        Value::Mapping(entries) => {
            let check = |(key, value): &(pipe_yaml::Key, Node)| {
                check_span(text, key.span);
                check_node(text, value, depth + 1)
            };
            // A key counts as a value too.
            1 + entries.len() + entries.iter().map(check).sum::<usize>()
        }
    }
}

/// A field of every sort that a configuration has.
#[derive(Debug, serde::Deserialize)]
#[serde(default)]
struct Everything {
    flag: bool,
    count: u8,
    large: i64,
    share: f32,
    text: String,
    letter: char,
    pair: (u16, f64),
    list: Vec<Choice>,
    table: std::collections::BTreeMap<String, Option<Self>>,
    any: serde_json::Value,
    nothing: (),
}

#[derive(Debug, serde::Deserialize)]
#[expect(dead_code, reason = "only ever read")]
enum Choice {
    Plain,
    Number(u32),
    Pair(i8, String),
    Fields { name: Option<String>, required: usize },
}

impl Default for Everything {
    fn default() -> Self {
        Self {
            flag: false,
            count: 0,
            large: 0,
            share: 0.0,
            text: String::new(),
            letter: ' ',
            pair: (0, 0.0),
            list: Vec::new(),
            table: Default::default(),
            any: serde_json::Value::Null,
            nothing: (),
        }
    }
}

/// A job description: what is read is written and read back as the same.
pub fn job(bytes: &[u8]) {
    let Ok(job) = serde_json::from_slice::<Job>(bytes) else { return };
    let written = serde_json::to_vec(&job).unwrap_or_else(|error| panic!("{error}: {job:?}"));
    let again: Job = serde_json::from_slice(&written).unwrap_or_else(|error| panic!("{error}: {job:?}"));
    assert_eq!(again, job);
}

/// What a worker writes to its standard output: nothing of it steers the terminal, and as JSON it is still one event a
/// line.
pub fn event(bytes: &[u8]) {
    let (human, json) = (Written::default(), Written::default());
    scheduler::fuzzing::listen(bytes, &mut [&mut Human::plain(human.clone()), &mut JsonLines::new(json.clone())]);
    let human = human.text();
    assert!(!human.contains(|c: char| c.is_control() && c != '\n'), "{human:?}");
    for line in json.text().lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(event["event"].is_string(), "{line}");
    }
}

/// A buffer that its owner can still read.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl Written {
    fn text(&self) -> String {
        let bytes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8(bytes.clone()).unwrap_or_else(|error| panic!("{error}"))
    }
}

impl Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A manifest: nothing but the canonical text is read, and no path leaves the folder.
pub fn manifest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(manifest) = Manifest::parse(text) else { return };
    assert_eq!(manifest.to_text(), text);
    assert_eq!(Manifest::new(manifest.entries().to_vec()), manifest);
    for entry in manifest.entries() {
        assert!(stays_inside(&entry.path), "{:?}", entry.path);
    }
}

/// What the cache keeps only for speed, the right checksum put behind it: what is read is written and read back as the
/// same.
pub fn hints(bytes: &[u8]) {
    cache::fuzzing::hints(bytes);
}

/// The journal of a run: wherever it is cut, and whatever stands behind it, what was written is read.
pub fn journal(bytes: &[u8]) {
    let Some(record) = RunRecord::from_journal(bytes) else { return };
    let mut longer = bytes.to_vec();
    longer.extend(b"\n{\"event\":\"stage_be");
    assert_eq!(RunRecord::from_journal(&longer).as_ref(), Some(&record));
    let blank = bytes.iter().take_while(|byte| **byte == b'\n').count();
    let header = bytes[blank..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| blank + length);
    for at in [header, header + (bytes.len() - header) / 2, bytes.len().saturating_sub(1).max(header)] {
        let cut = RunRecord::from_journal(&bytes[..at]);
        assert_eq!(cut.map(|cut| cut.id).as_ref(), Some(&record.id));
    }
    let text = serde_json::to_string(&record).unwrap_or_else(|error| panic!("{error}: {record:?}"));
    assert!(!text.is_empty());
}

/// Whether a path, joined to a folder, leads to something in it.
fn stays_inside(path: &str) -> bool {
    let parts = Path::new(path).components();
    parts.clone().all(|part| matches!(part, Component::Normal(_))) && parts.count() == path.split('/').count()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Calls `target` with the seeds and the inputs that once failed.
    fn replay(name: &str, folders: &[&str], target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let mut replayed = 0;
        let own = ["seeds", "regressions"].map(|folder| fuzz.join(folder).join(name));
        for folder in folders.iter().map(|folder| fuzz.join(folder)).chain(own) {
            let Ok(entries) = std::fs::read_dir(&folder) else { continue };
            for entry in entries {
                let bytes = std::fs::read(entry.unwrap().path()).unwrap();
                target(&bytes);
                replayed += 1;
            }
        }
        assert!(replayed > 0, "nothing to replay for {name}");
    }

    #[test]
    fn pipelines() {
        replay("pipeline", &["../tests/pipelines/valid", "../tests/pipelines/invalid", "../pipelines"], pipeline);
        replay("yaml", &["../tests/pipelines/valid", "../tests/pipelines/invalid", "../pipelines"], yaml);
    }

    #[test]
    fn protocol() {
        replay("job", &[], job);
        replay("event", &[], event);
    }

    #[test]
    fn bundles() {
        replay("bundle", &[], bundle);
    }

    #[test]
    fn files_of_the_home() {
        replay("manifest", &[], manifest);
        replay("hints", &[], hints);
        replay("journal", &[], journal);
    }
}
