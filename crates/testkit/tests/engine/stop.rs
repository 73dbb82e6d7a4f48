//! Stopping a run, politely and not, and going on.

use std::fs;

use pipe_testkit::{Gate, Project, Ran};
use rustix::process::Signal;

use crate::project;

/// A stage that counts to five and stands at a gate at three.
fn counting() -> (Project, Gate) {
    let project = project("name: count\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let text = format!(
        "
name: count
stages:
  count: {{ kind: count, with: {{ steps: 5, stand_at: 3, gate: '{}' }} }}
  word: {{ kind: first_word, inputs: {{ text: count }} }}
",
        gate.folder().display()
    );
    project.write("pipeline.yaml", &text).unwrap();
    (project, gate)
}

fn begun_at(ran: &Ran) -> u64 {
    let figure = ran.events_of("stage_figure").find(|event| event["name"] == "begun_at").unwrap();
    figure["value"].as_u64().unwrap()
}

fn scratch(project: &Project) -> usize {
    fs::read_dir(project.home().join("scratch")).unwrap().count()
}

#[test]
fn ctrl_c_stops_cleanly_and_the_next_run_goes_on_where_it_stood() {
    let (project, gate) = counting();
    let running = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    running.signal(Signal::INT).unwrap();
    worker.wait_for_death().unwrap();
    let stopped = running.finish().unwrap();
    assert_eq!(stopped.code(), 1, "{stopped:?}");
    let end = stopped.events.last().unwrap();
    assert_eq!((end["outcome"].as_str(), end["unfinished"].as_u64()), (Some("cancelled"), Some(2)));
    assert_eq!(end["go_on"], "pipe run pipeline.yaml");
    assert_eq!(scratch(&project), 0);

    let next = project.run(&[]).unwrap();
    assert_eq!((next.code(), begun_at(&next)), (0, 3));
    assert_eq!(next.started(), ["count", "word"]);
}

#[test]
fn killing_the_scheduler_kills_its_worker_and_the_next_run_recovers() {
    let (project, gate) = counting();
    let running = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    running.signal(Signal::KILL).unwrap();
    worker.wait_for_death().unwrap();
    assert_eq!(running.finish().unwrap().code(), 1009);
    assert_eq!(scratch(&project), 1, "nobody was left to clean up");

    let next = project.run(&[]).unwrap();
    assert_eq!((next.code(), begun_at(&next)), (0, 3));
    assert_eq!(scratch(&project), 0);
    assert_eq!(fs::read_dir(project.home().join("resume")).unwrap().count(), 0);
}

#[test]
fn what_a_killed_run_left_is_swept_though_its_stage_is_gone() {
    let (project, gate) = counting();
    let running = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    running.signal(Signal::KILL).unwrap();
    worker.wait_for_death().unwrap();
    running.finish().unwrap();
    project.write("pipeline.yaml", "name: other\nstages:\n  a: { kind: write, with: { text: a } }\n").unwrap();
    assert_eq!(project.run(&[]).unwrap().code(), 0);
    assert_eq!(scratch(&project), 0);
}

#[test]
fn a_second_ctrl_c_kills_a_worker_that_does_not_listen() {
    let project = project("name: deaf\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let folder = gate.folder().display();
    let with = format!("{{ text: deaf, behaviour: ignore, gate: '{folder}' }}");
    project.write("pipeline.yaml", &format!("name: deaf\nstages:\n  deaf: {{ kind: write, with: {with} }}\n")).unwrap();

    let mut running = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    running.signal(Signal::INT).unwrap();
    running.wait_for("run_stopping").unwrap();
    running.signal(Signal::INT).unwrap();
    worker.wait_for_death().unwrap();
    let stopped = running.finish().unwrap();
    assert_eq!(stopped.code(), 1);
    assert_eq!(stopped.events.last().unwrap()["outcome"], "cancelled");
}

#[test]
fn termination_and_the_end_of_the_terminal_stop_like_ctrl_c() {
    for signal in [Signal::TERM, Signal::HUP] {
        let (project, gate) = counting();
        let running = project.start(&[]).unwrap();
        let worker = gate.wait_for_worker().unwrap();
        running.signal(signal).unwrap();
        worker.wait_for_death().unwrap();
        let stopped = running.finish().unwrap();
        assert_eq!((stopped.code(), stopped.stages("stage_failed")), (1, vec!["count".to_owned()]), "{signal:?}");
    }
}
