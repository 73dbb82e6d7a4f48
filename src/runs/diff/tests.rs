//! Tests of the comparison of runs.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pipe_stage::Digest;
use serde_json::json;

use super::*;
use crate::runs::{Asked, Machine, RunStatus};

/// A side with one stage `a` of the configuration `with`, of which the key is made.
fn side(with: Value, figures: Value) -> Side {
    let identity = Identity {
        kind: "fake".to_owned(),
        version: 1,
        config: with.clone(),
        files: BTreeMap::new(),
        pins: BTreeMap::new(),
        environment: BTreeMap::new(),
        inputs: BTreeMap::new(),
    };
    let stage = StageRun {
        outcome: Outcome::Ran,
        key: Some(identity.key()),
        outputs: [("out".to_owned(), Digest::of(with.to_string().as_bytes()))].into(),
        figures: serde_json::from_value(figures).unwrap(),
        duration_seconds: 1.0,
        ..StageRun::skipped("fake")
    };
    let record = RunRecord {
        id: "20260101-000000-000-0000".parse().unwrap(),
        pipeline: "test".to_owned(),
        file: "/p.yaml".into(),
        set: Vec::new(),
        asked: Asked::default(),
        resolved: Digest::of(b""),
        status: RunStatus::Done,
        started: jiff::Timestamp::UNIX_EPOCH,
        ended: Some(jiff::Timestamp::UNIX_EPOCH),
        duration_seconds: 2.0,
        version: "1".to_owned(),
        machine: Machine::default(),
        stages: [("a".to_owned(), stage)].into(),
    };
    let pipeline = json!({ "stages": { "a": { "kind": "fake", "with": with } } });
    Side { record, pipeline: Some(pipeline), identities: [("a".to_owned(), identity)].into() }
}

fn fields(changes: &[Change]) -> Vec<(&str, Value, Value)> {
    let value = |value: &Option<Value>| value.clone().unwrap_or_default();
    changes.iter().map(|change| (change.field.as_str(), value(&change.from), value(&change.to))).collect()
}

#[test]
fn equal_runs_differ_in_nothing_but_time() {
    let a = side(json!({ "rate": 1e-4 }), json!({ "loss": 0.5, "tokens_per_second": 10.0 }));
    let mut b = side(json!({ "rate": 1e-4 }), json!({ "loss": 0.5, "tokens_per_second": 12.0 }));
    b.record.stages["a"].duration_seconds = 9.0;
    b.record.machine.cpus = 64;
    let diff = RunDiff::between(&a, &b);
    assert!(diff.equal);
    assert_eq!(fields(&diff.run), [("machine.cpus", json!(0), json!(64))]);
    let stage = &diff.stages["a"];
    assert_eq!((stage.key, stage.outputs.len(), stage.config.len()), (None, 0, 0));
    assert_eq!(stage.duration, Some(Pair { from: 1.0, to: 9.0 }));
    assert_eq!((stage.figures.len(), stage.figures[0].difference), (1, Some(2.0)));
    b.record.stages["a"].outcome = Outcome::Hit;
    assert!(RunDiff::between(&a, &b).equal, "found or made, it is the same");
}

#[test]
fn what_goes_in_and_comes_out_of_a_stage_is_compared_field_by_field() {
    let a = side(json!({ "lora": { "r": 8, "alpha": 16 }, "seed": 1 }), json!({ "loss": 0.5, "note": "x" }));
    let b = side(json!({ "lora": { "r": 16, "alpha": 16 }, "bf16": true }), json!({ "loss": 0.25, "acc": 0.9 }));
    let diff = RunDiff::between(&a, &b);
    assert!(!diff.equal);
    let stage = &diff.stages["a"];
    assert_eq!(
        fields(&stage.config),
        [("bf16", Value::Null, json!(true)), ("lora.r", json!(8), json!(16)), ("seed", json!(1), Value::Null)]
    );
    assert!(stage.key.is_some() && stage.outputs.len() == 1 && stage.outcome.is_none());
    let figures: Vec<_> = stage.figures.iter().map(|figure| (figure.name.as_str(), figure.difference)).collect();
    assert_eq!(figures, [("loss", Some(-0.25)), ("acc", None), ("note", None)]);
}

#[test]
fn files_inputs_and_the_environment_are_compared_where_they_are_known() {
    let (mut a, mut b) = (side(json!({}), json!({})), side(json!({}), json!({})));
    for (side, text) in [(&mut a, "1"), (&mut b, "2")] {
        let digest = Digest::of(text.as_bytes());
        let identity = side.identities.get_mut("a").unwrap();
        identity.files.insert("source".to_owned(), FileIdentity { name: "x.jsonl".to_owned(), folder: false, digest });
        identity.environment.insert("API_TOKEN".to_owned(), Some(digest));
        identity.inputs.insert("data".to_owned(), vec![digest, digest]);
        side.record.stages["a"].key = Some(identity.key());
    }
    let diff = RunDiff::between(&a, &b);
    let stage = &diff.stages["a"];
    assert_eq!((stage.files.len(), stage.inputs.len()), (1, 1));
    assert_eq!(stage.environment_variables, ["API_TOKEN"], "by name only");
    assert!(!diff.equal);

    b.identities.clear();
    let stage = RunDiff::between(&a, &b).stages.swap_remove("a").unwrap();
    assert!(stage.files.is_empty() && stage.inputs.is_empty(), "nothing is said of what is not known");
    assert!(stage.key.is_some());
}

#[test]
fn a_stage_of_one_run_only_makes_them_differ() {
    let (a, mut b) = (side(json!({}), json!({})), side(json!({}), json!({})));
    b.record.stages.insert("b".to_owned(), StageRun::skipped("fake"));
    let diff = RunDiff::between(&a, &b);
    assert!(!diff.equal && diff.stages["a"].is_equal());
    assert_eq!(diff.stages["b"].in_runs, InRuns::OnlyB);
    assert_eq!(RunDiff::between(&b, &a).stages["b"].in_runs, InRuns::OnlyA);
    b.record.stages["a"].outcome = Outcome::Failed;
    assert!(!RunDiff::between(&a, &b).stages["a"].is_equal());
}
