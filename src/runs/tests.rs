//! Tests of run records.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pipe_stage::{Digest, Resources};
use serde_json::json;

use super::*;
use crate::graph::tests::pipeline;

#[test]
fn ids_differ_and_sort_by_time() {
    let temp = tempfile::tempdir().unwrap();
    let runs = Runs::new(&Home::open(temp.path()).unwrap());
    let ids: Vec<RunId> = (0..50).map(|_| runs.begin().unwrap()).collect();
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
fn a_run_is_recorded_from_its_beginning_to_its_end_and_the_newest_is_found() {
    let temp = tempfile::tempdir().unwrap();
    let runs = Runs::new(&Home::open(temp.path()).unwrap());
    assert_eq!(runs.latest(|_| true), None);
    let pipeline = pipeline("a:\nb: a");
    let mut first = RunRecord::begin("20260101-000000-000-0000".parse().unwrap(), &pipeline);
    runs.put(&first).unwrap();
    assert_eq!(runs.get(&first.id), Some(first.clone()));
    first.status = RunStatus::Done;
    let outputs = [("out".to_owned(), Digest::of(b"a"))].into();
    first.stages.insert("a".to_owned(), StageRun { outcome: Outcome::Ran, outputs, ..StageRun::skipped("fake") });
    first.stages.insert("b".to_owned(), StageRun::skipped("fake"));
    runs.put(&first).unwrap();
    let mut second = RunRecord::begin("20260101-000000-001-0000".parse().unwrap(), &pipeline);
    second.pipeline = "another".to_owned();
    runs.put(&second).unwrap();

    assert_eq!(runs.latest(|_| true), Some(second.clone()));
    assert_eq!(runs.latest(|run| run.pipeline == "test"), Some(first.clone()));
    assert_eq!(runs.ids(), [second.id, first.id.clone()]);
    let found = runs.get(&first.id).unwrap();
    assert_eq!(found.artifact("a", "out"), Some(Digest::of(b"a")));
    assert_eq!(
        (found.artifact("b", "out"), found.artifact("a", "other"), found.artifact("c", "out")),
        (None, None, None)
    );

    std::fs::write(temp.path().join("runs/20260102-000000-000-0000.json"), "{").unwrap();
    assert_eq!(runs.latest(|run| run.pipeline == "test"), Some(first), "a damaged record hides no other");
}

#[test]
fn the_resolved_pipeline_is_a_pipeline() {
    let mut pipeline = pipeline("parts:\nadapter: parts.train parts\npackage: adapter");
    let spec = pipeline.stages.get_mut("adapter").unwrap();
    spec.config = json!({ "learning_rate": 1e-4, "name": "no", "price": "${not} a $${param} $", "none": null });
    spec.resources = Resources { cpus: Some(2), gpus: 1, ..Resources::default() };
    let record = RunRecord::begin("20260101-000000-000-0000".parse().unwrap(), &pipeline);
    assert_eq!(
        record.resolved,
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
      - parts
    with:
      learning_rate: 0.0001
      name: no
      price: $${not} a $$${param} $
      none: null
    resources:
      cpus: 2
      gpus: 1
  package:
    kind: fake
    inputs:
      data: adapter
    with: {}
"
    );
}
