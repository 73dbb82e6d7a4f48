//! Two runs at once.

use pipe_testkit::{Gate, Project};
use rustix::process::Signal;

use crate::project;

fn gated() -> (Project, Gate) {
    let project = project("name: gated\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let text = format!(
        "
name: gated
stages:
  slow: {{ kind: write, with: {{ text: slow work, gate: '{}' }} }}
  word: {{ kind: first_word, inputs: {{ text: slow }} }}
",
        gate.folder().display()
    );
    project.write("pipeline.yaml", &text).unwrap();
    (project, gate)
}

#[test]
fn one_does_the_work_and_the_other_waits_and_finds_it() {
    let (project, gate) = gated();
    let first = project.start(&["slow"]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    let mut second = project.start(&[]).unwrap();
    let waiting = second.wait_for("stage_waiting").unwrap();
    assert!(waiting["holder"].as_str().unwrap().contains("process"), "{waiting}");
    worker.open().unwrap();

    let (first, second) = (first.finish().unwrap(), second.finish().unwrap());
    assert_eq!((first.code(), second.code()), (0, 0));
    assert_eq!(first.started(), ["slow"]);
    assert_eq!((second.hits(), second.started()), (vec!["slow".to_owned()], vec!["word".to_owned()]));
}

#[test]
fn one_that_waits_takes_over_when_the_other_dies() {
    let (project, gate) = gated();
    let first = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    let mut second = project.start(&[]).unwrap();
    second.wait_for("stage_waiting").unwrap();
    first.signal(Signal::KILL).unwrap();
    worker.wait_for_death().unwrap();

    gate.wait_for_worker().unwrap().open().unwrap();
    let second = second.finish().unwrap();
    assert_eq!((second.code(), second.started()), (0, vec!["slow".to_owned(), "word".to_owned()]));
    first.finish().unwrap();
}

#[test]
fn one_that_waits_can_be_stopped() {
    let (project, gate) = gated();
    let first = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    let mut second = project.start(&[]).unwrap();
    second.wait_for("stage_waiting").unwrap();
    second.signal(Signal::INT).unwrap();
    let second = second.finish().unwrap();
    assert_eq!((second.code(), second.started().len()), (1, 0));
    assert_eq!(second.events.last().unwrap()["outcome"], "cancelled");

    worker.open().unwrap();
    assert_eq!(first.finish().unwrap().code(), 0);
}

#[test]
fn a_stage_that_waits_for_another_run_holds_no_slot() {
    let (project, gate) = gated();
    let text = std::fs::read_to_string(project.folder().join("pipeline.yaml")).unwrap();
    project.write("pipeline.yaml", &format!("{text}  aside: {{ kind: write, with: {{ text: aside }} }}\n")).unwrap();
    let first = project.start(&["slow"]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    // `slow` has the longer way behind it, and so its turn comes first.
    let mut second = project.start(&["--jobs", "1"]).unwrap();
    second.wait_for("stage_waiting").unwrap();
    assert_eq!(second.wait_for("stage_finished").unwrap()["stage"], "aside");
    worker.open().unwrap();
    let second = second.finish().unwrap();
    assert_eq!((second.code(), second.hits(), second.started()), (0, vec!["slow".to_owned()], vec!["word".to_owned()]));
    assert_eq!(first.finish().unwrap().code(), 0);
}
