//! From the text of a report to events.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use pipe_stage::{Job, PROTOCOL, Resources};
use serde_json::json;

use super::*;

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The events that a report becomes; nothing is written if it is `None`.
fn events(text: Option<&str>) -> Vec<Value> {
    events_after(|path| text.map_or(Ok(()), |text| fs::write(path, text)))
}

/// The events that become of what `write` leaves where a report should be.
fn events_after(write: impl FnOnce(PathBuf) -> io::Result<()>) -> Vec<Value> {
    let temp = tempfile::tempdir().unwrap();
    let job = Job {
        protocol: PROTOCOL,
        kind: "command".to_owned(),
        stage: "a".to_owned(),
        config: Value::Null,
        inputs: [].into(),
        user_files: [].into(),
        pins: [].into(),
        output: PathBuf::new(),
        work: temp.path().join("work"),
        resume: PathBuf::new(),
        resources: Resources::default(),
    };
    let lines = Lines::default();
    let context = Context::new(job, Box::new(lines.clone()), Arc::default());
    write(environment::metrics_file(&context)).unwrap();
    report(&context);
    let bytes = lines.0.lock().unwrap().clone();
    bytes
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .map(|line| serde_json::from_slice(line).unwrap())
        .collect()
}

#[test]
fn objects_are_figures_and_objects_with_steps_are_metrics() {
    assert!(events(None).is_empty());
    assert!(events(Some("")).is_empty());
    let text =
        "{\"step\": 1, \"loss\": 2.5}\n{\"step\": 2, \"loss\": 2}\n{\n  \"accuracy\": 0.9,\n  \"device\": \"中\"\n}\n";
    assert_eq!(
        events(Some(text)),
        [
            json!({ "event": "metric", "step": 1, "values": { "loss": 2.5 } }),
            json!({ "event": "metric", "step": 2, "values": { "loss": 2.0 } }),
            json!({ "event": "figure", "name": "accuracy", "value": 0.9 }),
            json!({ "event": "figure", "name": "device", "value": "中" }),
        ]
    );
}

#[test]
fn what_cannot_be_read_is_a_warning_and_the_rest_counts() {
    let warnings = |text: &str| {
        let events = events(Some(text));
        let (warnings, others): (Vec<_>, Vec<_>) = events.into_iter().partition(|event| event["level"] == "warn");
        let warnings: Vec<_> = warnings.iter().map(|warning| warning["message"].as_str().unwrap().to_owned()).collect();
        (warnings, others.len())
    };
    let (found, others) = warnings("{\"a\": 1}\n{\"b\": NaN}");
    assert_eq!(others, 1);
    assert!(found[0].starts_with("$PIPE_METRICS is not JSON objects, and is left out from there: "), "{found:?}");
    let (found, others) = warnings("{\"a\": [1], \"b\": 2}");
    assert_eq!(found, ["$PIPE_METRICS: `a` is left out: it is neither a number nor a short text"]);
    assert_eq!(others, 1);
    let (found, others) = warnings("{\"step\": 3, \"a\": \"x\", \"b\": 2}");
    assert_eq!(found, ["$PIPE_METRICS: the values of step 3 that are no numbers are left out"]);
    assert_eq!(others, 1);
}

#[test]
fn what_is_no_file_is_not_read() {
    let events = events_after(|path| std::os::unix::fs::symlink("/dev/null", path));
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["message"], "$PIPE_METRICS is left out: it is no file");
}
