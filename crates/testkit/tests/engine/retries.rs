//! Stages that are tried again, and stages whose time is up.

use std::fs;

use rustix::process::Signal;

use crate::project;

fn flaky(failures: u64, retries: u32) -> pipe_testkit::Project {
    project(&format!(
        "
name: flaky
stages:
  flaky: {{ kind: flaky, with: {{ failures: {failures} }}, retries: {retries} }}
  aside: {{ kind: write, with: {{ text: aside }} }}
"
    ))
}

#[test]
fn a_stage_is_tried_again_with_what_it_left_to_resume_from() {
    let project = flaky(2, 2);
    let ran = project.run(&["--jobs", "1"]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert_eq!(project.text(&ran, "flaky", "out").unwrap(), "3");
    let retries: Vec<_> = ran.events_of("stage_retrying").collect();
    let told = |retry: &serde_json::Value| (retry["attempt"].as_u64(), retry["failure"]["chain"][0].to_string());
    let expected = |attempt: u64| (Some(attempt), format!("\"attempt {attempt} was told to fail\""));
    assert_eq!(retries.iter().map(|retry| told(retry)).collect::<Vec<_>>(), [expected(1), expected(2)]);
    assert!(retries[1]["delay_seconds"].as_f64() > retries[0]["delay_seconds"].as_f64());
    assert_eq!(ran.started(), ["flaky", "aside", "flaky", "flaky"], "others do not wait for the next attempt");
    assert!(ran.stages("stage_failed").is_empty());
    assert_eq!(ran.events.last().unwrap()["ran"], 2);
}

#[test]
fn each_attempt_is_in_the_journal_with_its_log() {
    let project = flaky(1, 1);
    project.run(&[]).unwrap();
    let runs = pipe::runs::Runs::new(&pipe::cache::Home::open(project.home()).unwrap());
    let record = runs.latest(|_| true).unwrap();
    let stage = &record.stages["flaky"];
    assert_eq!(stage.outcome, pipe::runs::Outcome::Ran);
    assert_eq!(stage.attempts.len(), 2, "{stage:?}");
    assert_eq!(stage.attempts[0].error, ["attempt 1 was told to fail"]);
    let log = |attempt: usize| fs::read_to_string(project.home().join(&stage.attempts[attempt].log)).unwrap();
    assert!(log(0).contains("failed: attempt 1 was told to fail; tried again in 0.25 s"), "{}", log(0));
    assert!(log(1).contains("output `out` is "), "{}", log(1));
}

#[test]
fn a_stage_whose_next_attempt_cannot_begin_has_failed_once() {
    let project = flaky(9, 5);
    let mut running = project.start(&["flaky"]).unwrap();
    running.wait_for("stage_retrying").unwrap();
    let scratch = project.home().join("scratch");
    fs::rename(&scratch, project.home().join("moved")).unwrap();
    fs::write(&scratch, "no folder").unwrap();
    let ran = running.finish().unwrap();
    assert_eq!(ran.code(), 3, "{ran:?}");
    assert_eq!(ran.stages("stage_failed"), ["flaky"]);
    let runs = pipe::runs::Runs::new(&pipe::cache::Home::open(project.home()).unwrap());
    assert_eq!(runs.summaries().next().unwrap().counts.failed, 1);
}

#[test]
fn after_the_last_retry_a_stage_has_failed() {
    let project = flaky(9, 1);
    let ran = project.run(&[]).unwrap();
    assert_eq!((ran.code(), ran.stages("stage_retrying").len()), (1, 1));
    let failed: Vec<_> = ran.events_of("stage_failed").collect();
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0]["failure"]["chain"][0], "attempt 2 was told to fail");

    let next = project.run(&["--set", "stages.flaky.with.failures=3"]).unwrap();
    assert_eq!(next.stages("stage_retrying").len(), 1, "a new run tries anew");
    assert_eq!(project.text(&next, "flaky", "out").unwrap(), "4", "and resumes");
}

#[test]
fn a_run_can_be_stopped_while_a_stage_waits_for_its_next_attempt() {
    let project = flaky(99, 99);
    let mut running = project.start(&[]).unwrap();
    // From then on it nearly always waits.
    let waits = |event: &serde_json::Value| event["delay_seconds"].as_f64() >= Some(2.0);
    while !waits(&running.wait_for("stage_retrying").unwrap()) {}
    running.signal(Signal::INT).unwrap();
    let ran = running.finish().unwrap();
    assert_eq!((ran.code(), ran.events.last().unwrap()["outcome"].as_str()), (1, Some("cancelled")), "{ran:?}");
    let failed = ran.events_of("stage_failed").next().unwrap();
    assert_eq!(failed["failure"]["chain"][0], "stopped on request before it was tried again");
    assert_eq!(failed["failure"]["chain"][1], "attempt 4 was told to fail");
}

#[test]
fn a_failure_elsewhere_ends_the_waiting_for_the_next_attempt() {
    let project = project(
        "
name: two
stages:
  flaky: { kind: flaky, with: { failures: 99 }, retries: 99 }
  bad: { kind: write, with: { text: bad, behaviour: fail } }
",
    );
    let ran = project.run(&["--jobs", "1"]).unwrap();
    assert_eq!((ran.code(), ran.stages("stage_failed").len()), (1, 2), "{ran:?}");
    assert_eq!(ran.started().len(), 2);
}

#[test]
fn a_stage_whose_time_is_up_is_asked_to_stop_and_has_failed() {
    let project = project("name: late\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let stage = |behaviour: &str| {
        let with = format!("{{ text: late, behaviour: {behaviour}, gate: '{}' }}", gate.folder().display());
        project.write(
            "pipeline.yaml",
            &format!("name: late\nstages:\n  late: {{ kind: write, with: {with}, timeout: 1s }}\n"),
        )
    };
    for behaviour in ["wait_for_stop", "ignore"] {
        stage(behaviour).unwrap();
        let running = project.start(&[]).unwrap();
        gate.wait_for_worker().unwrap().wait_for_death().unwrap();
        let ran = running.finish().unwrap();
        let failed = ran.events_of("stage_failed").next().unwrap();
        assert_eq!((ran.code(), failed["failure"]["class"].as_str()), (1, Some("stage")), "{behaviour}: {ran:?}");
        let chain = serde_json::json!(["it was stopped after its timeout of 1.00 s"]);
        assert_eq!(failed["failure"]["chain"], chain, "{behaviour}");
    }
}
