//! The stage as the engine runs it: samples in, fewer samples and figures out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{
    collections::BTreeSet,
    fs,
    io::{self, Write},
    sync::{Arc, Mutex},
};

use pipe_samples::{Sample, Samples, Writer};
use pipe_stage::{
    Artifact, Context, Digest, Event, Failure, Job, Kind, PROTOCOL, Problems, Resources, Stage, Validate,
};
use serde_json::{Value, json};
use stage_filter::{Config, Filter};

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

/// Runs the stage; gives what is left and the figures.
fn run(samples: &[Sample], config: Value) -> Result<(Vec<Sample>, Value), Failure> {
    let folder = tempfile::tempdir().unwrap();
    let (input, output) = (folder.path().join("input"), folder.path().join("output"));
    fs::create_dir_all(&input).unwrap();
    fs::create_dir_all(output.join("out")).unwrap();
    let mut writer = Writer::create(&input).unwrap();
    for sample in samples {
        writer.write(sample.view()).unwrap();
    }
    writer.finish().unwrap();
    let job = Job {
        protocol: PROTOCOL,
        kind: Filter::KIND.to_owned(),
        stage: "kept".to_owned(),
        config: config.clone(),
        inputs: [("samples".to_owned(), vec![Artifact { path: input, digest: Digest::of(b"") }])].into(),
        user_files: [].into(),
        pins: [].into(),
        output: output.clone(),
        work: folder.path().join("work"),
        resume: folder.path().join("resume"),
        resources: Resources::default(),
    };
    let sink = Sink::default();
    let context = Context::new(job, Box::new(sink.clone()), Arc::default());
    Filter::run(&serde_json::from_value(config).unwrap(), &context)?;
    let mut figures = json!({});
    for line in String::from_utf8(sink.0.lock().unwrap().clone()).unwrap().lines() {
        if let Event::Figure { name, value } = serde_json::from_str(line).unwrap() {
            figures[name] = value;
        }
    }
    let left = Samples::load(&output.join("out")).unwrap();
    let owned = left.iter().map(|s| Sample { input_ids: s.input_ids.to_vec(), labels: s.labels.to_vec() });
    Ok((owned.collect(), figures))
}

/// A sample of `length` ids from `first` on, all of them labels.
fn sample(length: u32, first: u32) -> Sample {
    let input_ids: Vec<u32> = (first..first + length).collect();
    Sample { labels: input_ids.iter().map(|id| *id as i32).collect(), input_ids }
}

fn unlabelled(length: u32) -> Sample {
    let mut sample = sample(length, 9);
    // The first label does not count: nothing predicts it.
    sample.labels[1..].fill(pipe_samples::IGNORED);
    sample
}

#[test]
fn the_limits_belong_to_the_range() {
    let samples = [sample(31, 0), sample(32, 0), sample(40, 0), sample(41, 0)];
    let (left, _) = run(&samples, json!({})).unwrap();
    assert_eq!(left, samples[1..]);
    let (left, figures) = run(&samples, json!({ "min_length": 32, "max_length": 40 })).unwrap();
    assert_eq!(left, samples[1..3]);
    let expected = json!({
        "rows": 4, "rows_kept": 2, "dropped_too_short": 1, "dropped_too_long": 1, "dropped_unlabelled": 0,
        "dropped_duplicate": 0, "tokens_kept": 72, "tokens_dropped": 72, "tokens_trained": 70,
    });
    assert_eq!(figures, expected);
    let (left, _) = run(&samples, json!({ "min_length": 0 })).unwrap();
    assert_eq!(left, samples);
}

#[test]
fn samples_without_labels_may_go() {
    let samples = [unlabelled(5), sample(5, 0)];
    let (left, _) = run(&samples, json!({ "min_length": 1 })).unwrap();
    assert_eq!(left, samples);
    let (left, figures) = run(&samples, json!({ "min_length": 1, "drop_unlabelled": true })).unwrap();
    assert_eq!(left, samples[1..]);
    assert_eq!(figures["dropped_unlabelled"], 1);
}

#[test]
fn the_first_of_equal_samples_stays() {
    // Labels make no difference; a prefix is another sample.
    let mut relabelled = sample(5, 0);
    relabelled.labels[2] = pipe_samples::IGNORED;
    let samples = [sample(5, 0), sample(4, 0), sample(5, 1), relabelled, sample(5, 0)];
    let (left, figures) = run(&samples, json!({ "min_length": 1, "dedup": true })).unwrap();
    assert_eq!(left, samples[..3]);
    assert_eq!(figures["dropped_duplicate"], 2);
    let (left, _) = run(&samples, json!({ "min_length": 1 })).unwrap();
    assert_eq!(left, samples);
}

#[test]
fn nothing_left_is_an_error_that_says_why() {
    let error = |samples: &[Sample], config| run(samples, config).map(|_| ()).unwrap_err().chain().join(": ");
    let samples = [sample(3, 0), sample(4, 0), sample(90, 0)];
    assert_eq!(
        error(&samples, json!({ "min_length": 8, "max_length": 80 })),
        "none of 3 samples is left: 2 shorter than min_length 8, 1 longer than max_length 80"
    );
    assert_eq!(
        error(&[unlabelled(50)], json!({ "drop_unlabelled": true })),
        "none of 1 samples is left: 1 with no token for the loss (drop_unlabelled)"
    );
    assert_eq!(error(&[], json!({})), "there is no sample to filter: the input is empty");
}

#[test]
fn the_configuration_is_checked() {
    let problems = |config: Value| {
        let mut problems = Problems::default();
        serde_json::from_value::<Config>(config).unwrap().validate(&BTreeSet::new(), &mut problems);
        problems.into_inner().into_iter().map(|(path, message, _)| format!("{path} {message}")).collect::<Vec<_>>()
    };
    assert_eq!(problems(json!({ "min_length": 5, "max_length": 5 })), [""; 0]);
    assert_eq!(problems(json!({ "max_length": 31 })), ["max_length must be at least min_length, which is 32"]);
}
