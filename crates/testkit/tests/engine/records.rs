//! What a run leaves behind for `pipe log`, `pipe get` and the next plan.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use pipe::{
    cache::Home,
    runs::{Outcome, RunRecord, RunStatus, Runs},
};
use pipe_testkit::Project;
use rustix::process::Signal;

use crate::project;

fn latest(project: &Project) -> RunRecord {
    let runs = Runs::new(&Home::open(project.home()).unwrap());
    let mut record = runs.latest(|_| true).unwrap();
    runs.complete(&mut record);
    record
}

fn log(project: &Project, record: &RunRecord, stage: &str) -> String {
    fs::read_to_string(project.home().join(record.stages[stage].log.as_ref().unwrap())).unwrap()
}

const FOUR: &str = "
name: four
stages:
  first: { kind: write, with: { text: one } }
  second: { kind: write, with: { text: two } }
  third: { kind: write, with: { text: three } }
  last: { kind: concat, inputs: { parts: [first, second, third] } }
";

#[test]
fn the_record_tells_what_became_of_every_stage() {
    let project = project(FOUR);
    let ran = project.run(&["first"]).unwrap();
    let first = latest(&project);
    assert_eq!((first.status, first.stages.len()), (RunStatus::Done, 1));
    assert_eq!(first.id.as_str(), ran.events[0]["run"]);

    // One after the other: what has not begun when a stage fails does not begin.
    let ran = project.run(&["--jobs", "1", "--set", "stages.third.with.behaviour=fail"]).unwrap();
    let record = latest(&project);
    assert_eq!(record.id.as_str(), ran.events[0]["run"]);
    assert_eq!(record.status, RunStatus::Failed);
    let outcomes: Vec<_> = record.stages.iter().map(|(name, stage)| (name.as_str(), stage.outcome)).collect();
    assert_eq!(
        outcomes,
        [("first", Outcome::Hit), ("second", Outcome::Ran), ("third", Outcome::Failed), ("last", Outcome::Skipped)]
    );
    assert_eq!(record.stages["first"].outputs, first.stages["first"].outputs);
    assert_eq!(record.stages["first"].figures["length"], 3);
    assert_eq!(record.stages["third"].error[0], "the fake stage was told to fail");
    assert_eq!(record.stages["third"].reasons, ["never run"]);
}

#[test]
fn the_log_holds_what_the_worker_wrote_and_reported() {
    let project = project(FOUR);
    project.run(&["--set", "stages.first.with.behaviour=babble"]).unwrap();
    let record = latest(&project);
    let text = log(&project, &record, "first");
    for part in ["first (write): never run", "about to Babble", "not an event", "length: 3", "output `out` is "] {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }

    project.run(&[]).unwrap();
    let again = latest(&project);
    assert_eq!(log(&project, &again, "first"), text, "a hit shows the log of the run that made it");
    assert!(!project.home().join("logs").join(again.id.as_str()).exists(), "nothing ran, so there are no logs");
}

#[test]
fn a_killed_run_leaves_a_record_that_never_ended() {
    let project = project("name: killed\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let with = format!("{{ text: x, gate: '{}' }}", gate.folder().display());
    project.write("pipeline.yaml", &format!("name: killed\nstages:\n  x: {{ kind: write, with: {with} }}\n")).unwrap();
    let running = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    let record = latest(&project);
    assert_eq!(record.status, RunStatus::Running, "everybody can see how a run stands");
    // What the worker says reaches the log through `pipe`.
    let path = project.home().join("logs").join(record.id.as_str()).join("x.log");
    let clock = Instant::now();
    while !fs::read_to_string(&path).is_ok_and(|text| text.contains("about to Work")) {
        assert!(clock.elapsed() < Duration::from_secs(60), "the log stays empty");
        thread::sleep(Duration::from_millis(2));
    }
    running.signal(Signal::KILL).unwrap();
    worker.wait_for_death().unwrap();
    running.finish().unwrap();
    let record = latest(&project);
    assert_eq!((record.status, record.ended), (RunStatus::Killed, None));
    assert_eq!((record.stages["x"].outcome, record.stages["x"].attempts.len()), (Outcome::Unfinished, 1));
    assert_eq!(record.stages["x"].reasons, ["never run"]);
    assert!(log(&project, &record, "x").contains("about to Work"));
}
