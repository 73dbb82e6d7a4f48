//! A run that goes on after a failure.

use crate::project;

const BRANCHES: &str = "
name: branches
stages:
  bad: { kind: write, with: { text: bad, behaviour: fail } }
  after: { kind: first_word, inputs: { text: bad } }
  good: { kind: write, with: { text: good } }
  both: { kind: concat, inputs: { parts: [good, after] } }
  fine: { kind: first_word, inputs: { text: good } }
  worse: { kind: write, with: { text: worse, behaviour: lack_something } }
";

#[test]
fn what_does_not_need_the_failed_stage_goes_on_and_the_rest_is_named() {
    let project = project(BRANCHES);
    let ran = project.run(&["--keep-going", "--jobs", "1"]).unwrap();
    assert_eq!(ran.code(), 1, "the first failed stage of the pipeline decides: {ran:?}");
    assert_eq!(ran.stages("stage_finished"), ["good", "fine"]);
    // What fails may come to an end while the next stage runs.
    assert_eq!(ran.stages("stage_failed").len(), 2);
    assert_eq!(ran.stages("stage_skipped"), ["after", "both"]);
    let end = ran.events.last().unwrap();
    assert_eq!(end["failed"], serde_json::json!(["bad", "worse"]));
    let skipped = |stage: &str| serde_json::json!({ "stage": stage, "because": "bad" });
    assert_eq!(end["skipped"], serde_json::json!([skipped("after"), skipped("both")]));
    assert_eq!((end["ran"].as_u64(), end["unfinished"].as_u64()), (Some(2), Some(4)));

    let mended = project.run(&["--set", "stages.bad.with.behaviour=work", "--keep-going"]).unwrap();
    assert_eq!(mended.code(), 3, "{mended:?}");
    assert_eq!(mended.hits(), ["good", "fine"]);
}

#[test]
fn people_are_told_what_was_skipped_and_why() {
    let ran = project(BRANCHES).run(&["--keep-going", "--text", "--jobs", "1"]).unwrap();
    let told = |line: &str| ran.errors.lines().any(|told| told == line);
    assert!(told("  failed: bad, worse") && told("  skipped because `bad` failed: after, both"), "{}", ran.errors);
}

#[test]
fn without_being_asked_to_a_run_begins_nothing_after_a_failure() {
    let ran = project(BRANCHES).run(&["--jobs", "1"]).unwrap();
    assert_eq!((ran.code(), ran.started()), (1, vec!["bad".to_owned()]));
    assert!(ran.stages("stage_skipped").is_empty());
    assert_eq!(ran.events.last().unwrap()["failed"], serde_json::json!(["bad"]));
}
