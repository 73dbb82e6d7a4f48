//! Processes that outlive what started them: nothing waits for them, and none writes beside its successor.

use pipe_testkit::{Arrived, Project};
use rustix::process::Signal;

use crate::wild;

/// The run is killed alone, and the next one does the work again. Gives the process that was left behind.
fn killed_then_run(project: &Project, trick_at: impl FnOnce() -> Arrived) -> Arrived {
    let running = project.start(&[]).unwrap();
    let mut left = trick_at();
    running.signal(Signal::KILL).unwrap();
    assert_eq!(running.finish_without_output().unwrap().code(), 1009);
    assert!(left.lives().unwrap(), "the process must be one that outlives the run");
    let next = project.run(&["--set", "stages.wild.with.trick=none"]).unwrap();
    assert_eq!((next.code(), next.started()), (0, vec!["wild".to_owned()]), "{next:?}");
    left
}

#[test]
fn a_worker_that_outlives_its_run_is_ended_before_its_successor_begins() {
    let (project, gate) = wild("outlive");
    let mut left = killed_then_run(&project, || gate.wait_for_worker().unwrap());
    assert!(!left.lives().unwrap());
}

#[test]
fn a_worker_that_outlives_its_run_keeps_its_gpu() {
    let (project, gate) = wild("outlive");
    let locks = project.folder().join("gpus-of-the-machine");
    let machine = [("PIPE_GPU_LOCKS", locks.to_str().unwrap())];
    let on_gpu = ["--set", "stages.wild.resources={ gpus: 1 }", "--resources", "gpus=1"];
    let running = project.start_in(&machine, &on_gpu).unwrap();
    let left = gate.wait_for_worker().unwrap();
    running.signal(Signal::KILL).unwrap();
    assert_eq!(running.finish_without_output().unwrap().code(), 1009);

    let text = "name: other\nstages:\n  a: { kind: write, with: { text: a }, resources: { gpus: 1 } }\n";
    let other = crate::project(text);
    let mut waiting = other.start_in(&machine, &["--resources", "gpus=1"]).unwrap();
    assert_eq!(waiting.wait_for("stage_waiting_for_gpu").unwrap()["gpu"], "0");
    assert_eq!(project.run(&["--set", "stages.wild.with.trick=none"]).unwrap().code(), 0);
    left.wait_for_death().unwrap();
    assert_eq!(waiting.finish().unwrap().code(), 0);
}

#[test]
fn a_grandchild_with_the_lock_is_ended_before_the_successor_begins() {
    let (project, gate) = wild("stay_with_daemon");
    let mut left = killed_then_run(&project, || gate.wait_for_worker().unwrap());
    assert!(!left.lives().unwrap());
}

#[test]
fn a_grandchild_that_closed_all_files_is_ended_before_the_successor_begins() {
    let (project, gate) = wild("stay_with_bare_daemon");
    let mut left = killed_then_run(&project, || gate.wait_for_worker().unwrap());
    assert!(!left.lives().unwrap());
}

#[test]
fn what_a_finished_worker_leaves_running_holds_nothing_up_and_is_ended() {
    for trick in ["leave_child", "leave_daemon", "leave_bare_daemon"] {
        let (project, gate) = wild(trick);
        let running = project.start(&[]).unwrap();
        let left = gate.wait_for_worker().unwrap();
        let ran = running.finish().unwrap();
        assert_eq!(ran.code(), 0, "{trick}: {ran:?}");
        left.wait_for_death().unwrap();
        let warnings: Vec<&str> = ran.events_of("stage_log").map(|event| event["message"].as_str().unwrap()).collect();
        assert_eq!(warnings, ["its worker left 1 process behind: killed"], "{trick}");
    }
}

#[test]
fn a_worker_killed_for_memory_leaves_no_children() {
    let (project, gate) = wild("stay_with_bare_daemon");
    let running = project.start(&[]).unwrap();
    let left = gate.wait_for_worker().unwrap();
    let worker = running.children().unwrap();
    assert_eq!(worker.len(), 1, "{worker:?}");
    rustix::process::kill_process(worker[0], Signal::KILL).unwrap();
    let ran = running.finish().unwrap();
    assert_eq!(ran.code(), 1, "{ran:?}");
    left.wait_for_death().unwrap();
}
