//! Which stages a run is about, and that a plan says the same.

use std::collections::BTreeSet;

use pipe_testkit::{Project, Ran};

use crate::project;

const CHAINS: &str = "
name: chains
stages:
  hello: { kind: write, with: { text: hello world } }
  word: { kind: first_word, inputs: { text: hello } }
  twice: { kind: concat, inputs: { parts: [word, word] } }
  aside: { kind: write, with: { text: aside } }
";

/// Plans, runs, and sees that the plan held: what it said would run did, and nothing ran that it did not name.
fn run_as_planned(project: &Project, arguments: &[&str]) -> Ran {
    let plan = project.plan(arguments).unwrap();
    let planned = |actions: &[&str]| -> BTreeSet<String> {
        let stages = plan.iter().filter(|(_, action)| actions.contains(&action.as_str()));
        stages.map(|(stage, _)| stage.clone()).collect()
    };
    let ran = project.run(arguments).unwrap();
    assert_eq!(ran.code(), 0, "{ran:?}");
    let started = BTreeSet::from_iter(ran.started());
    assert!(planned(&["run"]).is_subset(&started), "{plan:?}: {started:?}");
    assert!(started.is_subset(&planned(&["run", "maybe"])), "{plan:?}: {started:?}");
    let selected: Vec<&str> = ran.events[0]["stages"].as_array().unwrap().iter().map(|s| s.as_str().unwrap()).collect();
    assert_eq!(plan.iter().map(|(stage, _)| stage.as_str()).collect::<Vec<_>>(), selected);
    ran
}

fn ran(project: &Project, arguments: &[&str]) -> (Vec<String>, Vec<String>) {
    let ran = run_as_planned(project, arguments);
    let mut started = ran.started();
    started.sort_unstable();
    let mut hits = ran.hits();
    hits.sort_unstable();
    (started, hits)
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

#[test]
fn named_stages_are_brought_up_to_date_with_what_they_need() {
    let project = project(CHAINS);
    assert_eq!(ran(&project, &["word"]), (names(&["hello", "word"]), names(&[])));
    assert_eq!(ran(&project, &[]), (names(&["aside", "twice"]), names(&["hello", "word"])));
    assert_eq!(ran(&project, &[]), (names(&[]), names(&["aside", "hello", "twice", "word"])));
}

#[test]
fn a_forced_stage_runs_and_leaves_its_dependents_alone_if_it_makes_the_same() {
    let project = project(CHAINS);
    project.run(&[]).unwrap();
    let forced = run_as_planned(&project, &["--force", "hello"]);
    assert_eq!(forced.started(), ["hello"]);
    assert_eq!(forced.events_of("stage_started").next().unwrap()["reasons"], serde_json::json!(["forced"]));
    assert_eq!(BTreeSet::from_iter(forced.hits()), BTreeSet::from_iter(names(&["word", "twice", "aside"])));
    assert_eq!(ran(&project, &["--force-all"]).0, names(&["aside", "hello", "twice", "word"]));
}

#[test]
fn from_a_stage_on_all_that_depends_on_it_runs() {
    let project = project(CHAINS);
    project.run(&[]).unwrap();
    assert_eq!(ran(&project, &["--from", "word"]), (names(&["twice", "word"]), names(&["aside", "hello"])));
    assert_eq!(ran(&project, &["word", "--from", "hello"]), (names(&["hello", "word"]), names(&[])));
}

#[test]
fn a_stage_alone_takes_what_the_others_made_up_to_date_or_not() {
    let project = project(CHAINS);
    let nothing = project.run(&["--only", "twice"]).unwrap();
    assert_eq!((nothing.code(), nothing.events.len()), (2, 0));
    assert_eq!(
        nothing.errors,
        "the stage `twice` takes from `word`, which has made nothing yet\n\
         bring it up to date first (`word` without --only), or run `twice` without --only\n"
    );
    assert!(project.plan(&["--only", "twice"]).unwrap_err().to_string().starts_with("the stage `twice` takes from"));

    assert_eq!(ran(&project, &["word"]).0, names(&["hello", "word"]));
    assert_eq!(ran(&project, &["--only", "twice"]), (names(&["twice"]), names(&[])));
    assert_eq!(ran(&project, &["--only", "twice"]), (names(&[]), names(&["twice"])));
    assert_eq!(ran(&project, &["--only", "twice", "--force", "twice"]), (names(&["twice"]), names(&[])));

    // What comes before it has changed, and is left alone: its last output is taken.
    let change = ["--only", "twice", "--set", "stages.hello.with.text=good morning", "--set"];
    let stale = run_as_planned(&project, &[&change[..], &["stages.twice.with.separator=+"]].concat());
    assert_eq!(stale.started(), ["twice"]);
    assert_eq!(project.text(&stale, "twice", "out").unwrap(), "hello+hello");
    let warning = stale.events_of("stage_log").next().unwrap();
    assert_eq!(warning["message"], "it takes what `word` made the last time, which is not up to date");
}

#[test]
fn what_does_not_go_together_is_refused() {
    let project = project(CHAINS);
    let refused = |arguments: &[&str]| {
        let ran = project.run(arguments).unwrap();
        assert_eq!((ran.code(), ran.events.len()), (2, 0));
        ran.errors.lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(
        refused(&["word", "--from", "aside"]),
        "`aside` is to run, but it is not among the stages to be brought up to date"
    );
    assert_eq!(
        refused(&["word", "--only", "aside"]),
        "stages are named to run alone, and others to be brought up to date with all that they need"
    );
}
