//! A command's processes: none outlives the run, the worker or the command.

use std::{fs::File, io::Read};

use rustix::{
    fs::{CWD, FileType, Mode, mknodat},
    process::{Pid, Signal, kill_process},
};

use super::Project;

/// A process that writes to the pipe if nobody ends it.
const SURVIVOR: &str = "sh -c 'sleep 100; echo survived >&3'";

/// A pipeline of one stage that keeps a named pipe open and then does what `then` says. The pipe ends when the last
/// process that has it is gone.
fn project(then: &str) -> (Project, File) {
    let project = Project::new("");
    let pipe = project.path("alive");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    let script = format!("        exec 3> {}\n        echo alive >&3\n        {then}\n", pipe.display());
    project.write(
        "p.yaml",
        &format!("stages:\n  a:\n    kind: command\n    with:\n      outputs: out\n      run: |\n{script}"),
    );
    // Opened for both, so that it does not wait for the command.
    let pipe = File::options().read(true).write(true).open(pipe).unwrap();
    (project, pipe)
}

/// Waits until the command is there, and then gives a reader that ends with it.
fn arrived(project: &Project, mut both: File) -> File {
    let mut word = [0; 6];
    both.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"alive\n");
    // The command has it open, so that this does not wait, and what is left to read is only the end.
    File::open(project.path("alive")).unwrap()
}

/// What the pipe holds when the last process that has it is gone.
fn rest(alive: &mut File) -> String {
    let mut text = String::new();
    alive.read_to_string(&mut text).unwrap();
    text
}

#[test]
fn a_command_and_all_that_it_started_end_with_a_run_that_is_killed() {
    let (project, pipe) = project(&format!("(setsid {SURVIVOR} &); {SURVIVOR} & {SURVIVOR}"));
    let mut run = project.start();
    let mut alive = arrived(&project, pipe);
    kill_process(Pid::from_child(&run), Signal::KILL).unwrap();
    run.wait().unwrap();
    assert_eq!(rest(&mut alive), "");
}

#[test]
fn all_that_a_command_started_has_time_to_stop_and_the_stage_is_cancelled() {
    // The shell itself is gone at once; what it waits for has something to save.
    let saves =
        "trap 'sleep 0.2; echo saved >> $PIPE_RESUME/state; exit 1' TERM; echo ready >&3; while :; do sleep 0.01; done";
    let (project, pipe) = project(&format!("({saves}) & wait"));
    let run = project.start();
    let mut alive = arrived(&project, pipe);
    let mut word = [0; 6];
    alive.read_exact(&mut word).unwrap();
    assert_eq!(&word, b"ready\n", "from here on it heeds the signal");
    kill_process(Pid::from_child(&run), Signal::INT).unwrap();
    assert_eq!(rest(&mut alive), "");
    let output = run.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_ne!(output.status.code(), Some(0), "{errors}");
    assert!(errors.contains("stopped"), "{errors}");
    let resume = project.path("home/resume");
    let state = std::fs::read_dir(resume).unwrap().next().unwrap().unwrap().path().join("state");
    assert_eq!(std::fs::read_to_string(state).unwrap(), "saved\n");
}

#[test]
fn what_a_command_leaves_running_is_ended_before_its_outputs_are_taken() {
    let (project, pipe) = project(&format!("(setsid {SURVIVOR} &); {SURVIVOR} & echo 1 > out"));
    let run = project.start();
    let mut alive = arrived(&project, pipe);
    let output = run.wait_with_output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{errors}");
    // Each is a shell and, once it has come so far, what that waits for.
    let left = errors.split_once("the command left ").unwrap().1;
    assert!(
        ["2", "3", "4"].iter().any(|count| left.starts_with(&format!("{count} processes behind: killed"))),
        "{errors}"
    );
    assert_eq!(rest(&mut alive), "");
    assert_eq!(project.text("a", "out"), "1\n");
}

#[test]
fn a_worker_that_is_killed_takes_its_command_along() {
    let (project, pipe) = project(&format!("(setsid {SURVIVOR} &); kill -9 $PPID; {SURVIVOR}"));
    let run = project.start();
    let mut alive = arrived(&project, pipe);
    let output = run.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(rest(&mut alive), "");
}
