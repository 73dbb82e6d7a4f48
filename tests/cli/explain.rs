//! `pipe explain` and the words of `pipe plan`.

use serde_json::Value;

use super::{Project, quickstart};

/// A pipeline that copies a folder of ten files.
fn folder() -> Project {
    let project = Project::new();
    std::fs::create_dir_all(project.path("数据/deep")).unwrap();
    for index in 0..10 {
        std::fs::write(project.path(&format!("数据/deep/{index}.txt")), "one").unwrap();
    }
    let text = "name: folder\nstages:\n  corpus: { kind: download, with: { source: \"file://数据\" } }\n";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    project
}

#[test]
fn the_file_of_a_folder_that_changed_is_named() {
    let project = folder();
    std::fs::write(project.path("数据/deep/7.txt"), "two").unwrap();
    let says = "the folder `数据` of `source` changed: `deep/7.txt` changed (1 of 10 files)";
    let plan = project.run(&["plan", "p.yaml"]);
    assert!(plan.stdout.contains(says), "{}", plan.stdout);
    let explained = project.run(&["explain", "p.yaml", "corpus"]);
    assert!(explained.stdout.contains(says), "{}", explained.stdout);
    let json: Value =
        serde_json::from_str(&project.run(&["explain", "p.yaml", "corpus", "--format", "json"]).stdout).unwrap();
    assert_eq!(
        json["reasons"][0]["files"]["files"],
        serde_json::json!([{ "path": "deep/7.txt", "change": "changed" }])
    );

    let ran = project.run(&["run", "p.yaml"]);
    assert!(ran.stderr.contains(says), "{}", ran.stderr);
    std::fs::remove_file(project.path("数据/deep/3.txt")).unwrap();
    std::fs::write(project.path("数据/new.txt"), "new").unwrap();
    let plan = project.run(&["plan", "p.yaml"]).stdout;
    assert!(plan.contains("`deep/3.txt` is gone, `new.txt` is new (2 of 10 files)"), "{plan}");
}

#[test]
fn a_stage_is_explained_before_during_and_after() {
    let project = Project::new();
    let file = quickstart();
    let explain = |arguments: &[&str]| {
        let ran = project.run(&[&["explain", &file][..], arguments].concat());
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        ran.stdout
    };
    let before = explain(&["kept"]);
    assert!(before.starts_with("kept (filter) would run\n\nwhy\n  never run\n  `tokens` runs first\n"), "{before}");
    assert!(before.contains("  `tokenizer`, still to run\n    never run\n"), "{before}");
    assert!(before.contains("still to be made") && before.contains("not known before"), "{before}");
    assert!(!project.path("home").exists(), "looking changes nothing");

    assert_eq!(project.run(&["run", &file, "kept"]).code, 0);
    let hit = explain(&["kept"]);
    assert!(hit.starts_with("kept (filter) is up to date\n\nkey\n  "), "{hit}");
    for part in [
        "\nmade\n  run          20",
        "  config       min_length",
        "  inputs       samples",
        "of run 20",
        "because      never run",
    ] {
        assert!(hit.contains(part), "no {part:?} in:\n{hit}");
    }
    let tokens = explain(&["tokens"]);
    assert!(tokens.contains("what is not: it must not change the result\n") && tokens.contains("num_proc"), "{tokens}");

    let change = ["--set", "max_length=64", "--set", "stages.kept.with.min_length=16"];
    let maybe = explain(&[&["kept"][..], &change].concat());
    for part in [
        "kept (filter) would run\n\nwhy\n  `min_length` changed from 32 to 16\n  `tokens` runs first\n",
        "  `tokens`, still to run\n    `max_length` changed from 384 to 64\n",
        "made last, with another key",
    ] {
        assert!(maybe.contains(part), "no {part:?} in:\n{maybe}");
    }

    // The change is made, and only the last stage does not know of it.
    assert_eq!(project.run(&[&["run", &file, "tokens"][..], &change[..2]].concat()).code, 0);
    let later = explain(&["kept", "--set", "max_length=64"]);
    assert!(later.contains("  input `samples` changed: `tokens` made "), "{later}");
    assert!(
        later.contains("  `tokens`, made in run 20") && later.contains("    `max_length` changed from 384 to 64\n"),
        "{later}"
    );

    let json: Value = serde_json::from_str(&explain(&["kept", "--set", "max_length=64", "--format", "json"])).unwrap();
    assert_eq!((&json["action"], &json["causes"][0]["stage"]), (&"run".into(), &"tokens".into()));
    assert_eq!(json["reasons"][0]["reason"], "input");
    assert_eq!(json["ingredients"]["inputs"][0]["made"]["run"], json["causes"][0]["run"]);

    let unknown = project.run(&["explain", &file, "kep"]);
    assert!(unknown.code == 2 && unknown.stderr.contains("did you mean `kept`?"), "{}", unknown.stderr);
}

#[test]
fn after_a_failure_the_plan_says_what_it_was() {
    let project = Project::new();
    let file = quickstart();
    let set = ["--set", "stages.kept.with.min_length=384", "--set", "max_length=64"];
    assert_eq!(project.run(&[&["run", &file, "kept"][..], &set].concat()).code, 1);
    let plan = project.run(&[&["plan", &file, "kept"][..], &set].concat()).stdout;
    assert!(plan.contains("run   kept       the last run failed: none of 620 samples is left"), "{plan}");
    let explained = project.run(&[&["explain", &file, "kept", "--format", "json"][..], &set].concat()).stdout;
    let json: Value = serde_json::from_str(&explained).unwrap();
    assert_eq!(
        (&json["reasons"][0]["reason"], &json["last_attempt"]["outcome"]),
        (&"last_run".into(), &"failed".into())
    );
}
