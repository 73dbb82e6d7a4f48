//! What a run says of why a stage runs, when the one before did not come to its end.

use pipe_testkit::{Project, Ran};
use rustix::process::Signal;

use crate::project;

fn reasons(ran: &Ran, stage: &str) -> Vec<String> {
    let started = ran.events_of("stage_started").find(|event| event["stage"] == stage).unwrap();
    started["reasons"].as_array().unwrap().iter().map(|reason| reason.as_str().unwrap().to_owned()).collect()
}

const TWO: &str = "
name: two
stages:
  one: { kind: write, with: { text: one } }
  two: { kind: concat, inputs: { parts: [one] } }
";

#[test]
fn after_a_failure_the_next_run_says_what_it_was() {
    let project = project(TWO);
    project.run(&["--set", "stages.one.with.behaviour=fail"]).unwrap();
    let again = project.run(&[]).unwrap();
    assert_eq!(reasons(&again, "one"), ["the last run failed: the fake stage was told to fail: because of the test"]);
    assert_eq!(reasons(&again, "two"), ["never run"], "its turn did not come");

    let change = ["--set", "stages.one.with.text=other"];
    let failed = project.run(&[&change[..], &["--set", "stages.one.with.behaviour=abort"]].concat()).unwrap();
    assert_eq!(reasons(&failed, "one"), ["`text` changed from \"one\" to \"other\""]);
    let again = project.run(&change).unwrap();
    assert_eq!(
        reasons(&again, "one"),
        ["`text` changed from \"one\" to \"other\"", "the last run failed: its worker was killed by signal 6 (abort)"]
    );
    let third = project.run(&["--set", "stages.one.with.text=third"]).unwrap();
    assert_eq!(reasons(&third, "one"), ["`text` changed from \"other\" to \"third\""], "what went well is over");
}

#[test]
fn after_a_stop_or_a_kill_the_next_run_says_so() {
    for (signal, words) in [(Signal::INT, "the last run was stopped"), (Signal::KILL, "the last run was killed")] {
        let project = waiting();
        let gate = project.gate("gate").unwrap();
        let running = project.start(&["--set", "stages.x.with.behaviour=wait_for_stop"]).unwrap();
        let worker = gate.wait_for_worker().unwrap();
        running.signal(signal).unwrap();
        worker.wait_for_death().unwrap();
        running.finish().unwrap();
        let again = project.start(&[]).unwrap();
        gate.wait_for_worker().unwrap().open().unwrap();
        assert_eq!(reasons(&again.finish().unwrap(), "x"), [words]);
    }
}

/// A project whose stage `x` passes the gate `gate`.
fn waiting() -> Project {
    let project = project("name: waiting\nstages: {}\n");
    let with = format!("{{ text: x, gate: '{}' }}", project.folder().join("gate").display());
    let text = format!("name: waiting\nstages:\n  x: {{ kind: write, with: {with} }}\n");
    project.write("pipeline.yaml", &text).unwrap();
    project
}
