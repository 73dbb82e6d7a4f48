//! Processes that are children of a run and that it did not start: those of the shell that became it.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process, test_kill_process};

use crate::project;

#[test]
fn what_ran_before_the_run_began_goes_on() {
    let project = project("name: one\nstages:\n  a: { kind: write, with: { text: a } }\n");
    let script = "sleep 600 >/dev/null 2>&1 & echo $! > before; exec \"$0\" run pipeline.yaml";
    let ran = Command::new("sh")
        .args(["-c", script, env!("CARGO_BIN_EXE_fake-pipe")])
        .current_dir(project.folder())
        .env("PIPE_HOME", project.home())
        .output()
        .unwrap();
    let before = std::fs::read_to_string(project.folder().join("before")).unwrap();
    let before = Pid::from_raw(before.trim().parse().unwrap()).unwrap();
    let lives = test_kill_process(before).is_ok();
    let _ = kill_process(before, Signal::KILL);
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success() && lives, "{said}");
    assert!(!said.contains("left 1 process behind"), "{said}");
}
