//! Workers that say too much, or what makes no sense: the run takes little memory and little disk, and a person can
//! still read what happened.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use pipe::{
    cache::Home,
    runs::{RunRecord, Runs},
};
use pipe_testkit::{Gate, Project, Ran};

use crate::project;

/// A log is at most its first 8 MiB and twice 8 MiB of its end.
const LOG_BYTES: u64 = 25 << 20;

/// What `pipe` takes at most while a worker floods it, in bytes.
const PEAK_BYTES: u64 = 80 << 20;

/// A project with one stage, `wild`, that plays this trick, and passes a gate if it floods.
fn flooding(trick: &str, megabytes: u64) -> (Project, Gate) {
    let project = project("name: wild\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let folder = gate.folder().display();
    let with = format!("{{ text: wild, trick: {trick}, megabytes: {megabytes}, gate: '{folder}' }}");
    project.write("pipeline.yaml", &format!("name: wild\nstages:\n  wild: {{ kind: wild, with: {with} }}\n")).unwrap();
    (project, gate)
}

/// Runs it, and gives the most memory that `pipe` had taken, in bytes, when it had heard all.
fn flooded(project: &Project, gate: &Gate, arguments: &[&str]) -> (Ran, u64) {
    let running = project.start(arguments).unwrap();
    let pid = running.id();
    // Its output is read meanwhile, as somebody would.
    let ran = thread::spawn(move || running.finish());
    let worker = gate.wait_for_worker().unwrap();
    let peak = peak_memory(pid);
    worker.open().unwrap();
    (ran.join().unwrap().unwrap(), peak)
}

fn peak_memory(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
}

fn record(project: &Project) -> RunRecord {
    Runs::new(&Home::open(project.home()).unwrap()).latest(|_| true).unwrap()
}

fn log(project: &Project) -> PathBuf {
    project.home().join(record(project).stages["wild"].log.as_ref().unwrap())
}

fn size(path: &Path) -> u64 {
    fs::metadata(path).unwrap().len()
}

/// What a person is told beside the stage's beginning and end.
fn told(ran: &Ran) -> Vec<&str> {
    ran.events_of("stage_log").map(|event| event["message"].as_str().unwrap()).collect()
}

#[test]
fn a_gigabyte_of_errors_takes_neither_memory_nor_disk() {
    let (project, gate) = flooding("flood_errors", 1024);
    let (ran, peak) = flooded(&project, &gate, &[]);
    assert_eq!((ran.code(), told(&ran).len()), (0, 0), "{ran:?}");
    assert!(peak < PEAK_BYTES, "pipe took {peak} bytes");
    let log = log(&project);
    assert!(size(&log) < LOG_BYTES, "the log has {} bytes", size(&log));
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.lines().nth(1).unwrap().starts_with("line 0 of a flood"), "the beginning is kept");
    assert!(text.contains("the last line of the flood\n"), "the end is kept");
    let (_, left_out) = text.split_once("\n[... ").unwrap();
    let left_out: u64 = left_out.split_once(" bytes are left out here").unwrap().0.parse().unwrap();
    assert!((1000 << 20..1024 << 20).contains(&left_out), "{left_out} bytes are left out");
    assert_eq!(project.run(&[]).unwrap().hits(), ["wild"]);
}

#[test]
fn a_gigabyte_of_lines_that_are_no_events_is_counted() {
    let (project, gate) = flooding("flood_output", 1024);
    let (ran, peak) = flooded(&project, &gate, &[]);
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert!(peak < PEAK_BYTES, "pipe took {peak} bytes");
    let told = told(&ran);
    assert_eq!(told.len(), 11, "{told:?}");
    assert!(told[0].starts_with("its worker wrote a line that is no event: line 0 of a flood"), "{told:?}");
    assert!(told[10].starts_with("its worker wrote ") && told[10].ends_with(" lines that are no events"), "{told:?}");
    assert!(size(&log(&project)) < 10_000);
}

#[test]
fn messages_without_end_stay_in_the_log() {
    let (project, gate) = flooding("flood_log", 256);
    let (ran, peak) = flooded(&project, &gate, &["--text"]);
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert!(peak < PEAK_BYTES, "pipe took {peak} bytes");
    assert!(ran.errors.lines().count() < 1020, "{} lines are shown", ran.errors.lines().count());
    assert!(ran.errors.contains("warning: it says more than 1000 things: the rest is only in its log"));
    let log = log(&project);
    assert!(size(&log) < LOG_BYTES, "the log has {} bytes", size(&log));
    let text = fs::read_to_string(&log).unwrap();
    assert!(text.contains("bytes are left out here") && text.contains("line 499 of a flood"));
}

#[test]
fn figures_without_end_are_left_out_and_the_run_can_be_read() {
    let (project, gate) = flooding("flood_figures", 64);
    let (ran, peak) = flooded(&project, &gate, &[]);
    assert_eq!((ran.code(), ran.events_of("stage_figure").count()), (0, 1000));
    assert!(peak < PEAK_BYTES, "pipe took {peak} bytes");
    // What follows the figures is no event: the flood says that it was its last line.
    assert!(told(&ran)[0].starts_with("some of its figures are left out: of a stage at most 1000 are kept"));
    let run = record(&project);
    assert_eq!((run.stages["wild"].figures.len(), run.counts().ran), (1000, 1));
    assert!(size(&Runs::new(&Home::open(project.home()).unwrap()).path(&run.id)) < 2 << 20);
}

#[test]
fn a_line_of_a_hundred_megabytes_is_one_line_that_is_no_event() {
    let (project, gate) = flooding("flood_line", 100);
    let (ran, peak) = flooded(&project, &gate, &[]);
    assert_eq!(ran.code(), 0, "{ran:?}");
    assert!(peak < PEAK_BYTES, "pipe took {peak} bytes");
    let told = told(&ran);
    assert!(told[0].starts_with("its worker wrote a line that is no event: xxx") && told[0].len() < 500, "{told:?}");
    assert_eq!(told[1..], ["its worker wrote a line that is no event: the last line of the flood"]);
}

#[test]
fn garbage_is_shown_as_far_as_it_can_be_and_steers_no_terminal() {
    let project = project("name: wild\nstages:\n  wild: { kind: wild, with: { text: wild, trick: garbage } }\n");
    let ran = project.run(&[]).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    let told = told(&ran);
    assert_eq!(told[told.len() - 1], "its worker goes on writing lines that are no events");
    assert_eq!(ran.events_of("stage_metric").count() + ran.events_of("stage_figure").count(), 0);
    let run = record(&project);
    assert!(run.stages["wild"].metrics.is_empty() && run.stages["wild"].error.is_empty());

    let shown = project.run(&["--text", "--force", "wild"]).unwrap();
    assert_eq!(shown.code(), 0, "{shown:?}");
    assert!(shown.errors.chars().all(|c| c == '\n' || !c.is_control()), "{:?}", shown.errors);
}

#[test]
fn a_worker_that_closes_its_output_has_no_result() {
    let project = project("name: wild\nstages:\n  wild: { kind: wild, with: { text: wild, trick: close_output } }\n");
    let ran = project.run(&[]).unwrap();
    let failed = ran.events_of("stage_failed").next().unwrap();
    assert_eq!((ran.code(), &failed["failure"]["chain"][0]), (1, &"its worker ended without a result".into()));
    let next = project.run(&["--set", "stages.wild.with.trick=none"]).unwrap();
    assert_eq!((next.code(), next.started()), (0, vec!["wild".to_owned()]), "{next:?}");
}

#[test]
fn a_worker_that_is_killed_from_outside_is_said_to_be_killed_and_perhaps_for_memory() {
    let project = project("name: wild\nstages:\n  wild: { kind: wild, with: { text: wild, trick: be_killed } }\n");
    let ran = project.run(&[]).unwrap();
    let failure = &ran.events_of("stage_failed").next().unwrap()["failure"];
    assert_eq!((ran.code(), &failure["chain"][0]), (1, &"its worker was killed by signal 9 (out of memory?)".into()));
    let hint = failure["hint"].as_str().unwrap();
    assert!(hint.contains("if nobody killed it, the machine most likely ran out of memory"), "{hint}");
}

#[test]
fn a_worker_that_gets_no_memory_fails_alone() {
    let project = project("name: wild\nstages:\n  wild: { kind: wild, with: { text: wild, trick: eat_memory } }\n");
    let ran = project.run(&[]).unwrap();
    let failure = &ran.events_of("stage_failed").next().unwrap()["failure"];
    assert_eq!((ran.code(), &failure["chain"][0]), (1, &"its worker was killed by signal 6 (abort)".into()));
    // The log has its last words.
    assert!(failure["tail"].to_string().contains("memory allocation of 67108864 bytes failed"), "{failure}");
}
