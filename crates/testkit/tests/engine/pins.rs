//! What is elsewhere may change; what a pipeline takes of it changes when somebody says so.

use std::fs;

use pipe_testkit::{Project, Ran};
use serde_json::{Value, json};

use super::project;

const PIPELINE: &str = "\
stages:
  model: { kind: branch, with: { branch: main } }
  copy: { kind: first_word, inputs: { text: model } }
  same: { kind: branch, with: { branch: main } }
  other: { kind: surroundings, with: { variables: [PATH] } }
";

/// Two commits, as long as real ones.
const ONE: &str = "1111111111111111111111111111111111111111";
const TWO: &str = "2222222222222222222222222222222222222222";

struct Elsewhere {
    project: Project,
}

impl Elsewhere {
    fn new(pipeline: &str) -> Self {
        let project = project(pipeline);
        fs::create_dir(project.folder().join("elsewhere")).unwrap();
        Self { project }
    }

    fn moves_to(&self, commit: &str) {
        self.project.write("elsewhere/main", commit).unwrap();
    }

    /// With a network.
    fn run(&self, arguments: &[&str]) -> Ran {
        let elsewhere = self.project.folder().join("elsewhere");
        let environment = [("FAKE_ELSEWHERE", elsewhere.to_str().unwrap())];
        self.project.start_in(&environment, arguments).unwrap().finish().unwrap()
    }

    fn lock(&self) -> String {
        fs::read_to_string(self.project.folder().join("pipe.lock")).unwrap_or_default()
    }
}

/// The two stages that do the same: one of them runs, whichever comes first.
const EITHER: [&str; 2] = ["model", "same"];

fn pinned(ran: &Ran) -> Vec<Value> {
    ran.events_of("pinned").map(|event| json!([event["stage"], event["name"], event["from"], event["to"]])).collect()
}

#[test]
fn a_name_is_asked_for_once_and_stands_for_the_same_until_it_is_refreshed() {
    let there = Elsewhere::new(PIPELINE);
    there.moves_to(ONE);
    assert_eq!(
        there.project.plan(&[]).unwrap().iter().map(|(_, action)| action.as_str()).collect::<Vec<_>>(),
        ["run", "run", "run", "run"],
        "a plan asks nobody"
    );
    assert_eq!(there.lock(), "");

    let first = there.run(&[]);
    assert_eq!(
        (first.code(), pinned(&first)),
        (0, vec![json!(["model", "fake://main", null, ONE])]),
        "{}",
        first.errors
    );
    let made = EITHER.iter().find_map(|stage| there.project.text(&first, stage, "out"));
    assert_eq!(made.unwrap(), format!("{ONE} reached"));
    assert!(there.lock().contains(&format!("fake://main: '{ONE}'")), "{}", there.lock());

    there.moves_to(TWO);
    let second = there.run(&[]);
    assert_eq!((second.started(), pinned(&second)), (vec![], vec![]), "what is elsewhere has moved, and nobody asked");
    let without_network = there.project.run(&["--force", "model"]).unwrap();
    assert_eq!(there.project.text(&without_network, "model", "out").unwrap(), format!("{ONE} not reached"));

    let refreshed = there.run(&["--refresh", "same"]);
    assert_eq!(pinned(&refreshed), [json!(["same", "fake://main", ONE, TWO])]);
    let started = refreshed.started();
    let [first, copy] = &started[..] else { panic!("{:?}", refreshed.events) };
    assert!(EITHER.contains(&first.as_str()) && copy == "copy", "the other of the two is a hit: {started:?}");
    let reasons = &refreshed.events_of("stage_started").next().unwrap()["reasons"];
    assert_eq!(*reasons, json!([format!("`branch` moved from {} to {}", &ONE[..12], &TWO[..12])]));
    assert_eq!(pinned(&there.run(&["--refresh", "model"])), [json!(["model", "fake://main", TWO, TWO])]);

    there.moves_to(ONE);
    let back = there.run(&["--refresh", "model"]);
    assert!(back.started().is_empty(), "the first version is still in the cache: {:?}", back.events);
}

#[test]
fn only_what_is_selected_is_asked_for() {
    let there = Elsewhere::new(
        "stages:\n  a: { kind: branch, with: { branch: main } }\n  b: { kind: branch, with: { branch: gone } }\n",
    );
    there.moves_to(ONE);
    assert_eq!(there.run(&["a"]).code(), 0);
    let all = there.run(&[]);
    assert_eq!(all.code(), 1);
    assert_eq!(
        all.errors.lines().collect::<Vec<_>>(),
        [
            "cannot find out what `fake://gone` of the stage `b` stands for",
            "because: there is no branch `gone`",
            "because: No such file or directory (os error 2)",
            "look which there are"
        ]
    );
    assert!(all.events_of("run_started").next().is_none(), "nothing was begun");
}

#[test]
fn what_was_found_out_before_a_failure_is_kept() {
    let there = Elsewhere::new(
        "stages:\n  a: { kind: branch, with: { branch: main } }\n  b: { kind: branch, with: { branch: gone } }\n",
    );
    there.moves_to(ONE);
    assert_eq!(there.run(&[]).code(), 1);
    assert!(there.lock().contains(ONE), "{}", there.lock());
    let offline = there.project.run(&[]).unwrap();
    assert_eq!(offline.code(), 3);
    assert!(offline.errors.contains("`fake://gone` of the stage `b`"), "{}", offline.errors);
    assert!(offline.errors.contains("elsewhere cannot be reached\ngo there"), "{}", offline.errors);
}

#[test]
fn a_stage_that_takes_nothing_from_elsewhere_cannot_be_refreshed() {
    let there = Elsewhere::new(PIPELINE);
    let ran = there.run(&["--refresh", "copy"]);
    assert_eq!(ran.code(), 2);
    assert!(ran.errors.contains("`copy` takes nothing from elsewhere"), "{}", ran.errors);
}

#[test]
fn a_broken_lock_is_shown_and_stops_runs_and_plans() {
    let there = Elsewhere::new(PIPELINE);
    there.moves_to(ONE);
    there.project.write("pipe.lock", "pins:\n  fake://main: []\n").unwrap();
    let ran = there.run(&[]);
    assert_eq!(ran.code(), 2);
    assert!(ran.errors.contains("pipe.lock:2:16"), "{}", ran.errors);
    assert!(there.project.plan(&[]).unwrap_err().to_string().contains("pipe.lock:2:16"));
    assert!(there.lock().starts_with("pins:\n"), "it is left as it was");
}
