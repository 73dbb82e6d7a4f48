//! What a run says and leaves when a stage fails, and the exit codes.

use pipe_testkit::{Project, Ran};

use crate::project;

const FOUR: &str = "
name: four
stages:
  before: { kind: write, with: { text: fine } }
  middle: { kind: write, with: { text: middle } }
  after: { kind: concat, inputs: { parts: [before, middle] } }
  aside: { kind: write, with: { text: aside } }
";

fn run_with(project: &Project, behaviour: &str) -> Ran {
    project.run(&["--set", &format!("stages.middle.with.behaviour={behaviour}")]).unwrap()
}

/// The error with its causes, and the hint, of the only stage that failed.
fn failure(ran: &Ran) -> (String, String, String) {
    let failed: Vec<_> = ran.events_of("stage_failed").collect();
    assert_eq!(failed.len(), 1, "{ran:?}");
    let failure = &failed[0]["failure"];
    let lines = |value: &serde_json::Value| {
        let lines = value.as_array().unwrap().iter().map(|line| line.as_str().unwrap().to_owned());
        lines.collect::<Vec<_>>().join("\n")
    };
    (lines(&failure["chain"]), failure["hint"].as_str().unwrap_or_default().to_owned(), lines(&failure["tail"]))
}

#[test]
fn every_way_to_fail_has_its_code_and_its_reason() {
    let project = project(FOUR);
    let expected = [
        ("fail", 1, "the fake stage was told to fail\nbecause of the test", "tell it to work"),
        ("lack_something", 3, "there is no accelerator", ""),
        ("abort", 1, "its worker was killed by signal 6 (abort)", "pipe log"),
        ("panic", 1, "its worker ended with code 70", "a bug in the stage"),
        ("vanish", 1, "its worker ended without a result", "a bug in the stage"),
        ("write_nothing", 1, "the output `out` is empty", ""),
    ];
    for (behaviour, code, chain, hint) in expected {
        let ran = run_with(&project, behaviour);
        let found = failure(&ran);
        assert_eq!(ran.code(), code, "{behaviour}: {ran:?}");
        assert!(found.0.contains(chain), "{behaviour}: {found:?}");
        assert!(found.1.contains(hint), "{behaviour}: {found:?}");
        assert!(found.2.to_lowercase().contains("about to"), "{behaviour}: {found:?}");
        let end = ran.events.last().unwrap();
        assert_eq!(end["go_on"], "pipe run pipeline.yaml", "{behaviour}");
    }
}

#[test]
fn a_panic_of_a_worker_shows_its_message() {
    let project = project(FOUR);
    assert!(failure(&run_with(&project, "panic")).2.contains("a bug in the fake stage"));
}

#[test]
fn a_failure_stops_the_run_and_the_next_one_goes_on_from_there() {
    let project = project(FOUR);
    let failed = project.run(&["--jobs", "1", "--set", "stages.middle.with.behaviour=fail"]).unwrap();
    assert_eq!(failed.started(), ["before", "middle"]);
    let end = failed.events.last().unwrap();
    assert_eq!(
        (end["outcome"].as_str(), end["ran"].as_u64(), end["unfinished"].as_u64()),
        (Some("stage_failed"), Some(1), Some(3))
    );
    let next = project.run(&[]).unwrap();
    let mut started = next.started();
    started.sort_unstable();
    assert_eq!(
        (next.code(), next.hits(), started.join(" ")),
        (0, vec!["before".to_owned()], "after aside middle".to_owned())
    );
}

#[test]
fn a_failed_rerun_leaves_the_last_good_artifact_alone() {
    let project = project(FOUR);
    project.run(&[]).unwrap();
    let change = ["--set", "stages.middle.with.text=other", "--set", "stages.middle.with.behaviour=fail"];
    assert_eq!(project.run(&change).unwrap().code(), 1);
    assert_eq!(project.run(&[]).unwrap().hits().len(), 4);
}

#[test]
fn a_worker_that_writes_other_lines_is_warned_of_and_works() {
    let project = project(FOUR);
    let ran = run_with(&project, "babble");
    assert_eq!(ran.code(), 0);
    let warnings: Vec<_> = ran.events_of("stage_log").map(|event| event["message"].to_string()).collect();
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    assert!(warnings[0].contains("not an event") && warnings[1].contains("unheard_of"), "{warnings:?}");
}

#[test]
fn figures_are_kept_and_told() {
    let project = project(FOUR);
    let ran = project.run(&[]).unwrap();
    let figure = ran.events_of("stage_figure").find(|event| event["stage"] == "before").unwrap();
    assert_eq!((figure["name"].as_str(), figure["value"].as_u64()), (Some("length"), Some(4)));
}

#[test]
fn a_missing_worker_program_is_the_environments_fault() {
    let project = project("name: torch\nstages:\n  big: { kind: on_torch }\n");
    let ran = project.run(&[]).unwrap();
    let found = failure(&ran);
    assert_eq!(ran.code(), 3);
    assert!(found.0.contains("pipe-torch") && found.1.contains("make build"), "{found:?}");
}

#[test]
fn an_invalid_pipeline_is_wrong_usage() {
    let invalid = project("name: bad\nstages:\n  a: { kind: unheard_of }\n").run(&[]).unwrap();
    assert_eq!((invalid.code(), invalid.events.len()), (2, 0));
    assert!(invalid.errors.contains("pipeline.yaml:3"), "{}", invalid.errors);

    let cycle = "
name: cycle
stages:
  a: { kind: first_word, inputs: { text: b } }
  b: { kind: first_word, inputs: { text: a } }
";
    let cycle = project(cycle).run(&[]).unwrap();
    assert_eq!((cycle.code(), cycle.events.len()), (2, 0));
    assert!(cycle.errors.contains("`a` -> `b` -> `a`"), "{}", cycle.errors);
}

#[test]
fn people_are_told_what_failed_and_how_to_go_on() {
    let project = project(FOUR);
    let ran = project.run(&["--text", "--jobs", "1", "--set", "stages.middle.with.behaviour=fail"]).unwrap();
    for part in [
        "✓ before",
        "✗ middle",
        "  | about to Fail",
        "error: stage `middle` (write): the fake stage was told to fail",
        "  caused by: because of the test",
        "  help: tell it to work",
        "to go on from here: pipe run pipeline.yaml",
    ] {
        assert!(ran.errors.contains(part), "no {part:?} in:\n{}", ran.errors);
    }
}
