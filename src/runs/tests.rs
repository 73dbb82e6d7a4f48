//! Tests of run records.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{collections::BTreeMap, io::Write};

use indexmap::IndexMap;
use pipe_stage::{Output, Resources, UserFile};
use serde_json::json;

use super::*;
use crate::{
    cache::{Environment, Key},
    config::StageName,
    graph::tests::pipeline,
};

fn runs() -> (tempfile::TempDir, Runs) {
    let temp = tempfile::tempdir().unwrap();
    let runs = Runs::new(&Home::open(temp.path()).unwrap());
    (temp, runs)
}

fn key(text: &str) -> Key {
    Digest::of(text.as_bytes()).to_string().parse().unwrap()
}

fn began(stage: &str, log: &str) -> Line {
    Line::StageBegan(StageBegan {
        stage: stage.to_owned(),
        at: jiff::Timestamp::UNIX_EPOCH,
        key: key(stage),
        reasons: vec!["never run".to_owned()],
        because: Vec::new(),
        log: log.into(),
    })
}

fn ended(stage: &str, outcome: Outcome, figures: serde_json::Value) -> Line {
    let (outputs, error) = match outcome {
        Outcome::Ran => (BTreeMap::from([("out".to_owned(), Digest::of(stage.as_bytes()))]), Vec::new()),
        _ => (BTreeMap::new(), vec!["it broke".to_owned(), "because of the test".to_owned()]),
    };
    Line::StageEnded(StageEnded {
        stage: stage.to_owned(),
        outcome,
        duration_seconds: 2.0,
        outputs,
        figures: serde_json::from_value(figures).unwrap(),
        metrics: IndexMap::new(),
        environment: Some(Environment::default()),
        error,
    })
}

fn end(status: RunStatus, counts: Counts, measure: Option<Measure>) -> Line {
    let at = jiff::Timestamp::UNIX_EPOCH;
    Line::RunEnded(RunEnded { status, at, duration_seconds: 3.5, counts, measure })
}

/// A journal of a run of the pipeline `name` with stages `a`, `b` and `c`, not yet written.
fn begin(runs: &Runs, name: &str) -> (RunId, Journal) {
    // One a millisecond, so that their order is certain.
    let count = runs.ids().len();
    let id: RunId = format!("20260101-000000-{count:03}-{:04x}", 0xa000 + count).parse().unwrap();
    fs::create_dir_all(runs.folder()).unwrap();
    let mut journal = Journal::create(runs.path(&id)).unwrap();
    journal.push(&Line::RunBegan(Header {
        id: id.clone(),
        pipeline: name.to_owned(),
        file: "/p.yaml".into(),
        started: jiff::Timestamp::UNIX_EPOCH,
        version: "1".to_owned(),
        set: vec!["seed=1".to_owned()],
        asked: Asked { targets: vec!["c".to_owned()], force_all: true, ..Asked::default() },
        resolved: Digest::of(b"yaml"),
        machine: Machine::here(),
    }));
    let stages = ["a", "b", "c"].map(|stage| (stage.to_owned(), "fake".to_owned()));
    journal.push(&Line::Selected { stages: stages.into() });
    (id, journal)
}

#[test]
fn ids_go_on_from_the_newest_where_the_clock_was_set_back() {
    let (temp, runs) = runs();
    let folder = temp.path().join("runs");
    std::fs::create_dir(&folder).unwrap();
    let future: RunId = "29991231-235959-999-f000".parse().unwrap();
    std::fs::write(runs.path(&future), "").unwrap();
    let year_3000 = std::time::SystemTime::from("3000-01-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap());
    std::fs::File::open(&folder).unwrap().set_modified(year_3000).unwrap();
    let ids: Vec<RunId> = (0..5).map(|_| runs.begin().unwrap().0).collect();
    assert!(ids[0].as_str().starts_with("30000101-000000-000-"), "{ids:?}");
    assert!(ids.is_sorted() && ids[0] > future, "{ids:?}");
    assert_eq!(runs.ids()[0], ids[4]);

    // What removes journals changes the folder, too.
    std::fs::remove_file(runs.path(&future)).unwrap();
    runs.keep_order();
    assert!(runs.begin().unwrap().0 > ids[4]);
}

#[test]
fn ids_differ_and_sort_by_time() {
    let (_temp, runs) = runs();
    let ids: Vec<RunId> = (0..50).map(|_| runs.begin().unwrap().0).collect();
    let moments: Vec<&str> = ids.iter().map(|id| &id.as_str()[..19]).collect();
    assert!(moments.is_sorted(), "{moments:?}");
    let distinct: std::collections::BTreeSet<_> = ids.iter().collect();
    assert_eq!(distinct.len(), ids.len());
    assert!(ids.iter().all(|id| id.as_str().parse::<RunId>().unwrap() == *id));
    for text in
        ["", "20260131-174502-093-5f0G", "20260131-174502-093", "../../../etc/passwd", "20260131-174502-093-5f0c-"]
    {
        assert!(text.parse::<RunId>().is_err(), "{text}");
    }
}

#[test]
fn a_journal_tells_what_became_of_every_stage() {
    let (_temp, runs) = runs();
    let (id, mut journal) = begin(&runs, "test");
    let outputs = BTreeMap::from([("out".to_owned(), Digest::of(b"a"))]);
    journal.push(&Line::StageHit { stage: "a".to_owned(), key: key("a"), outputs: outputs.clone() });
    journal.push(&began("b", "logs/b.log"));
    journal.write().unwrap();
    let error = vec!["flaky".to_owned()];
    journal.push(&Line::AttemptFailed { stage: "b".to_owned(), duration_seconds: 1.0, error: error.clone() });
    journal.push(&began("b", "logs/b.2.log"));
    journal.push(&ended("b", Outcome::Ran, json!({ "loss": 0.5 })));
    journal.push(&began("c", "logs/c.log"));
    journal.push(&ended("c", Outcome::Failed, json!({})));
    let counts = Counts { hits: 1, ran: 1, failed: 1, ..Counts::default() };
    journal.push(&end(RunStatus::Failed, counts, None));
    journal.write().unwrap();
    journal.sync().unwrap();

    let record = runs.get(&id).unwrap();
    assert_eq!((record.status, record.duration_seconds, record.counts()), (RunStatus::Failed, 3.5, counts));
    assert_eq!((record.set.join(" "), record.asked.to_string()), ("seed=1".to_owned(), "c --force-all".to_owned()));
    assert!(record.machine.cpus > 0 && record.machine.memory_bytes > 1 << 20, "{:?}", record.machine);
    let (a, b, c) = (&record.stages["a"], &record.stages["b"], &record.stages["c"]);
    assert_eq!((a.outcome, a.key, &a.outputs, a.attempts.len()), (Outcome::Hit, Some(key("a")), &outputs, 0));
    assert_eq!((b.outcome, &b.reasons[..], b.duration_seconds), (Outcome::Ran, &["never run".to_owned()][..], 2.0));
    let attempts: Vec<_> = b.attempts.iter().map(|attempt| (attempt.outcome.unwrap(), &attempt.error)).collect();
    assert_eq!(attempts, [(Outcome::Failed, &error), (Outcome::Ran, &Vec::new())]);
    assert_eq!((b.log.clone(), b.figures["loss"].as_f64()), (Some("logs/b.2.log".into()), Some(0.5)));
    assert_eq!(
        (c.outcome, &c.error[..]),
        (Outcome::Failed, &["it broke", "because of the test"].map(str::to_owned)[..])
    );
    assert_eq!(record.artifact("a", "out"), Some(Digest::of(b"a")));
    assert_eq!([record.artifact("c", "out"), record.artifact("a", "x"), record.artifact("d", "out")], [None; 3]);
}

#[test]
fn a_run_without_an_end_goes_on_as_long_as_its_process_lives() {
    let (_temp, runs) = runs();
    let (id, mut journal) = begin(&runs, "test");
    assert!(runs.is_live(&id) && runs.get(&id).is_none(), "nothing is written yet");
    journal.push(&began("a", "logs/a.log"));
    journal.write().unwrap();
    let status = || (runs.get(&id).unwrap().status, runs.summaries().next().unwrap().status);
    assert_eq!(status(), (RunStatus::Running, RunStatus::Running));
    assert_eq!(runs.get(&id).unwrap().stages["a"].outcome, Outcome::Unfinished);
    drop(journal);
    assert_eq!(status(), (RunStatus::Killed, RunStatus::Killed));
    assert!(!runs.is_live(&id));
    let summary = runs.summaries().next().unwrap();
    assert_eq!((summary.counts.unfinished, summary.counts.skipped, summary.duration_seconds), (1, 2, None));
}

#[test]
fn wherever_a_journal_is_cut_the_rest_can_be_read() {
    let (_temp, runs) = runs();
    let (id, mut journal) = begin(&runs, "test");
    journal.push(&began("a", "logs/a.log"));
    journal.push(&ended("a", Outcome::Ran, json!({})));
    journal.push(&end(RunStatus::Done, Counts { ran: 1, skipped: 2, ..Counts::default() }, None));
    journal.write().unwrap();
    drop(journal);
    let bytes = fs::read(runs.path(&id)).unwrap();
    let header = bytes.iter().position(|byte| *byte == b'\n').unwrap();
    for length in 0..bytes.len() - 1 {
        match RunRecord::from_journal(&bytes[..length]) {
            Some(record) => assert!(length >= header && record.status == RunStatus::Killed, "{length}"),
            None => assert!(length < header, "{length}"),
        }
    }
    assert_eq!(RunRecord::from_journal(&bytes).unwrap().status, RunStatus::Done);
}

#[test]
fn a_list_reads_the_ends_of_journals_and_not_what_is_between() {
    let (_temp, runs) = runs();
    let (first, mut journal) = begin(&runs, "test");
    journal.write().unwrap();
    let mut file = fs::File::options().append(true).open(runs.path(&first)).unwrap();
    file.write_all(&[b"not JSON ".repeat(10_000), b"\n".to_vec()].concat()).unwrap();
    let measure = Measure { stage: "a".to_owned(), key: key("a"), name: "loss".to_owned(), value: 0.25 };
    // Nothing in between says so: these can only come from the last line.
    journal.push(&end(RunStatus::Done, Counts { ran: 7, ..Counts::default() }, Some(measure.clone())));
    journal.write().unwrap();
    let (_second, mut journal) = begin(&runs, "another");
    journal.push(&end(RunStatus::Cancelled, Counts { cancelled: 1, ..Counts::default() }, None));
    journal.write().unwrap();
    fs::write(runs.folder().join("20260101-000000-000-0000.jsonl"), "{").unwrap();
    fs::write(runs.folder().join("notes.txt"), "").unwrap();

    let summaries: Vec<_> = runs.summaries().collect();
    assert_eq!(summaries.len(), 2, "a damaged journal hides no other");
    assert_eq!((summaries[0].pipeline.as_str(), summaries[0].status), ("another", RunStatus::Cancelled));
    assert_eq!((summaries[1].counts.ran, &summaries[1].measure), (7, &Some(measure)));
    assert_eq!(runs.latest(|run| run.pipeline == "test").unwrap().id, first);
    assert_eq!(runs.of("test").map(|run| run.id).collect::<Vec<_>>(), [first]);
    assert_eq!((runs.ids().len(), runs.of("none").count()), (3, 0));
}

#[test]
fn a_run_that_only_finds_has_the_measure_of_the_run_that_made() {
    let (_temp, runs) = runs();
    let measure = |stage: &str, value| Some(Measure { stage: "a".into(), key: key(stage), name: "loss".into(), value });
    let run = |pipeline: &str, line: Line, measure: Option<Measure>| {
        let (_id, mut journal) = begin(&runs, pipeline);
        journal.push(&line);
        let counts = Counts { hits: usize::from(measure.is_none()), ..Counts::default() };
        journal.push(&end(RunStatus::Done, counts, measure));
        journal.write().unwrap();
    };
    let hit = |stage: &str| Line::StageHit { stage: "a".to_owned(), key: key(stage), outputs: BTreeMap::new() };
    run("test", began("one", ""), measure("one", 1.0));
    run("test", began("two", ""), measure("two", 2.0));
    run("another", began("three", ""), measure("three", 3.0));
    run("test", hit("two"), None);
    run("test", hit("one"), None);
    run("test", hit("three"), None);
    let mut list: Vec<_> = runs.summaries().collect();
    runs.inherit_measures(&mut list, 10);
    let values: Vec<_> = list.iter().map(|run| run.measure.as_ref().map(|measure| measure.value)).collect();
    assert_eq!(values, [None, Some(1.0), Some(2.0), Some(3.0), Some(2.0), Some(1.0)]);
}

#[test]
fn a_run_is_named_by_how_long_ago_it_was_or_by_a_part_of_its_id() {
    let (_temp, runs) = runs();
    let choose = |word: &str| runs.choose(word, |run| run.pipeline == "test");
    assert!(matches!(choose("last"), Err(ChooseError::NoRuns { .. })));
    let mut ids = Vec::new();
    for pipeline in ["test", "another", "test"] {
        let (id, mut journal) = begin(&runs, pipeline);
        journal.write().unwrap();
        ids.push(id);
    }
    for (word, index) in [("last", 2), ("last~", 0), ("last~1", 0), ("last~0", 2), (ids[0].as_str(), 0)] {
        assert_eq!(choose(word).unwrap(), ids[index], "{word}");
    }
    assert_eq!(choose(&ids[0].as_str()[20..]).ok(), Some(ids[0].clone()), "its last digits");
    assert!(choose("last~2").unwrap_err().to_string().contains("2 runs are recorded"));
    for word in ["", "last~x", "nightly", ids[1].as_str()] {
        assert!(matches!(choose(word), Err(ChooseError::Unknown { .. })), "{word}");
    }
    let error = choose(&ids[0].as_str()[..2]).unwrap_err();
    assert!(matches!(&error, ChooseError::Ambiguous { ids, .. } if ids.len() == 2), "{error}");
}

#[test]
fn a_resolved_pipeline_is_kept_once_and_made_only_if_it_must_be() {
    let (_temp, runs) = runs();
    let digest = runs.keep_resolved(None, || "name: a\n".to_owned()).unwrap();
    assert_eq!(runs.resolved(&digest).as_deref(), Some("name: a\n"));
    let known = runs.keep_resolved(Some(digest), || panic!("the home has it")).unwrap();
    assert_eq!(known, digest);
    fs::write(runs.pipeline(&digest), "name: b\n").unwrap();
    assert_eq!(runs.resolved(&digest), None, "damaged");
    fs::remove_file(runs.pipeline(&digest)).unwrap();
    assert_eq!(runs.keep_resolved(Some(digest), || "name: a\n".to_owned()).unwrap(), digest);
    assert!(runs.resolved(&digest).is_some());
}

#[test]
fn the_measure_of_a_stage_is_the_most_telling_of_its_figures() {
    let among =
        |figures: &[(&str, f64)]| Measure::among("a", key("a"), figures.iter().copied()).map(|measure| measure.name);
    assert_eq!(among(&[("rows", 3.0), ("loss", 2.0), ("perplexity", 7.4)]).as_deref(), Some("perplexity"));
    assert_eq!(among(&[("eval_loss_before", 9.0), ("final_loss", 2.0)]).as_deref(), Some("final_loss"));
    assert_eq!(among(&[("top-1 accuracy", 0.9), ("loss", 2.0)]).as_deref(), Some("top-1 accuracy"));
    assert_eq!(among(&[("glosses", 1.0), ("bytes", 2.0)]), None);
}

#[test]
fn the_resolved_pipeline_is_a_pipeline() {
    let mut pipeline = pipeline("parts:\nadapter: parts.train parts\npackage: adapter");
    pipeline.stages.get_mut("parts").unwrap().outputs = ["train", "out"].map(Output::folder).into();
    let spec = pipeline.stages.get_mut("adapter").unwrap();
    spec.config = json!({ "learning_rate": 1e-4, "name": "no", "price": "${not} a $${param} $", "none": null });
    spec.resources = Resources { cpus: Some(2), memory_bytes: Some(1 << 30), gpus: 1, time_seconds: Some(90) };
    spec.retries = 2;
    spec.timeout = Some(std::time::Duration::from_secs(5400));
    spec.checkout = [("out".to_owned(), "results/${adapter}".into())].into();
    spec.user_files = vec![UserFile { field: "inputs.lib/score.py".to_owned(), path: "score.py".into() }];
    assert_eq!(
        resolved_yaml(&pipeline),
        "\
name: test
stages:
  parts:
    kind: fake
    with: {}
  adapter:
    kind: fake
    inputs:
      data:
      - parts.train
      - parts.out
      lib/score.py: file://score.py
    with:
      learning_rate: 0.0001
      name: no
      price: $${not} a $$${param} $
      none: null
    resources:
      cpus: 2
      memory: 1073741824
      gpus: 1
      time: 90s
    retries: 2
    timeout: 5400s
    outputs:
      out: results/$${adapter}
  package:
    kind: fake
    inputs:
      data: adapter
    with: {}
"
    );
}

#[test]
fn no_attempt_of_a_stage_has_the_log_of_another_stage() {
    let id = RunId::generate(None);
    // A matrix over 1 and 1.2 makes both of these.
    let (one, other) = (StageName::new("a@1").unwrap(), StageName::new("a@1.2").unwrap());
    assert_ne!(Runs::log(&id, one.as_str(), 2), Runs::log(&id, other.as_str(), 1));
    assert!(StageName::new("a@1~2").is_none() && StageName::new("a~2").is_none());
}
