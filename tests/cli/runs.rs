//! `pipe runs` and `pipe log`: what a person sees of runs that were.

use serde_json::Value;

use super::{Project, Ran, quickstart, shell::offered};

fn json(ran: &Ran) -> Value {
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

/// A pipeline that copies a file, which takes no time.
fn copying() -> Project {
    let project = Project::new();
    std::fs::write(project.path("语料.txt"), "one").unwrap();
    let text = "name: 语料管线\nstages:\n  corpus: { kind: download, with: { source: \"file://语料.txt\" } }\n";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    project
}

#[test]
fn runs_are_listed_the_newest_first() {
    let project = copying();
    let empty = project.run(&["runs"]);
    assert!(empty.code == 0 && empty.stdout.starts_with("no runs are recorded in "), "{}", empty.stdout);
    assert_eq!(json(&project.run(&["runs", "--format", "json"]))["total"], 0);
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    std::fs::write(project.path("other.yaml"), std::fs::read(project.path("p.yaml")).unwrap()).unwrap();
    assert_eq!(project.run(&["run", "other.yaml", "--set", "name=other"]).code, 0);

    let list = project.run(&["runs"]).stdout;
    let lines: Vec<&str> = list.lines().collect();
    assert!(lines[0].starts_with("run  ") && lines[0].ends_with("result"), "{list}");
    assert!(lines[1].contains("  other     done") && lines[1].ends_with("1 hit"), "{list}");
    assert!(lines[2].contains("  语料管线  done") && lines[2].ends_with("1 hit"), "{list}");
    assert!(lines[3].ends_with("1 ran"), "{list}");

    let of_file = json(&project.run(&["runs", "list", "--pipeline", "p.yaml", "--limit", "1", "--format", "json"]));
    assert_eq!((of_file["total"].as_u64(), of_file["runs"].as_array().unwrap().len()), (Some(2), 1));
    assert_eq!((&of_file["runs"][0]["counts"]["hits"], &of_file["runs"][0]["status"]), (&1.into(), &"done".into()));
    assert!(project.run(&["runs", "-n", "1"]).stdout.ends_with("1 of 3: --limit shows more\n"));
    assert!(project.run(&["runs", "-n", "0"]).stdout.ends_with("0 of 3: --limit shows more\n"));

    std::fs::write(project.path("p.yaml"), "stages: nonsense").unwrap();
    let broken = json(&project.run(&["runs", "--pipeline", "p.yaml", "--format", "json"]));
    assert_eq!(broken["total"], 2, "a file with mistakes has the runs that it had");
}

#[test]
fn a_run_is_shown_with_its_stages_and_what_they_failed_of() {
    let project = Project::new();
    let file = quickstart();
    assert_eq!(project.run(&["run", &file, "kept"]).code, 0);
    let set = ["--set", "stages.kept.with.min_length=384", "--set", "max_length=64"];
    assert_eq!(project.run(&[&["run", &file, "kept"][..], &set].concat()).code, 1);

    let shown = project.run(&["runs", "show", "--reasons"]).stdout;
    for part in [
        ": failed in ",
        "asked for  kept\n",
        "set        stages.kept.with.min_length=384  max_length=64\n",
        "stages     1 ran, 3 hits, 1 failed\n",
        "because `max_length` changed from 384 to 64",
        "error: none of 620 samples is left",
        "files 9 · bytes 501 KiB",
    ] {
        assert!(shown.contains(part), "no {part:?} in:\n{shown}");
    }
    let run = json(&project.run(&["runs", "show", "last", "--format", "json"]));
    assert_eq!(
        (&run["stages"]["kept"]["outcome"], &run["stages"]["corpus"]["outcome"]),
        (&"failed".into(), &"hit".into())
    );
    assert_eq!(run["stages"]["corpus"]["figures"]["files"], 9, "a hit shows the figures of the run that made it");
    assert_eq!(run["stages"]["kept"]["attempts"].as_array().unwrap().len(), 1);

    let resolved = project.run(&["runs", "show", "last~1", "--resolved"]).stdout;
    std::fs::write(project.path("resolved.yaml"), &resolved).unwrap();
    assert!(resolved.contains("max_length: 384"), "{resolved}");
    assert_eq!(project.run(&["check", "resolved.yaml"]).code, 0);

    let id = run["id"].as_str().unwrap();
    assert_eq!(json(&project.run(&["runs", "show", &id[20..], "--format", "json"]))["id"], id);
    for (word, says) in [("last~7", "`last~7` goes too far back: 2 runs are recorded"), ("nightly", "no run is called")]
    {
        let ran = project.run(&["runs", "show", word]);
        assert!(ran.code == 2 && ran.stderr.contains(says) && ran.stderr.contains("help:"), "{}", ran.stderr);
    }
    let ambiguous = project.run(&["runs", "show", &id[..2]]);
    assert!(ambiguous.code == 2 && ambiguous.stderr.contains("could be"), "{}", ambiguous.stderr);
}

#[test]
fn two_runs_are_compared() {
    let project = Project::new();
    let file = quickstart();
    let run = |set: &[&str]| assert_eq!(project.run(&[&["run", &file, "parts"][..], set].concat()).code, 0);
    run(&[]);
    run(&[]);
    let equal = project.run(&["runs", "diff", "--exit-code"]);
    assert_eq!(equal.code, 0);
    assert!(equal.stdout.contains("the runs are equal: 6 stages with the same keys"), "{}", equal.stdout);

    run(&["--set", "stages.kept.with.min_length=40"]);
    let diff = project.run(&["runs", "diff"]);
    assert_eq!(diff.code, 0, "differences are no failure");
    assert_eq!(project.run(&["runs", "diff", "--exit-code"]).code, 1);
    for part in
        ["min_length         32            ->  40\n", "(-24, -4.56 %)", "2 of 6 stages differ, 4 are the same\n"]
    {
        assert!(diff.stdout.contains(part), "no {part:?} in:\n{}", diff.stdout);
    }
    let diff = json(&project.run(&["runs", "diff", "last~2", "last", "--format", "json"]));
    assert_eq!(diff["equal"], false);
    assert_eq!(diff["stages"]["kept"]["config"], serde_json::json!([{ "field": "min_length", "from": 32, "to": 40 }]));
    assert_eq!(diff["stages"]["parts"]["inputs"][0]["field"], "samples");
    assert_eq!(diff["stages"]["tokens"]["key"], Value::Null);
    let figures = diff["stages"]["kept"]["figures"].as_array().unwrap();
    assert!(figures.iter().any(|figure| figure["name"] == "rows_kept" && figure["difference"] == -24.0), "{figures:?}");
}

#[test]
fn of_a_long_script_a_diff_shows_the_lines_that_differ() {
    let project = Project::new();
    let write = |middle: &str| {
        let script = format!("seq 1 > a\n        {middle}\n        sort a > out.txt\n");
        let text = format!(
            "name: s\nstages:\n  a:\n    kind: command\n    with:\n      run: |\n        {script}      outputs: out.txt\n      undeclared: ignore\n"
        );
        std::fs::write(project.path("p.yaml"), text).unwrap();
        assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    };
    write("echo one >> a");
    write("echo two >> a");
    let diff = project.run(&["runs", "diff"]).stdout;
    assert!(diff.contains("\n  run\n    - echo one >> a\n    + echo two >> a\n"), "{diff}");
    assert!(!diff.contains("seq 1") && diff.lines().all(|line| line.chars().count() <= 80), "{diff}");
}

#[test]
fn outputs_are_found_and_completed_by_their_names() {
    let project = Project::new();
    let text = "name: m\nstages:\n  parts:\n    kind: command\n    with: { run: 'echo 1 > a; echo 2 > b', outputs: { one: a, two: b } }\n  \
                m:\n    kind: command\n    matrix: { x: [0.5, 1] }\n    with: { run: 'echo ${matrix.x} > a', outputs: a }\n";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    assert_eq!(offered(&project, &["pipe", "get", ""])[..4], ["parts.one", "parts.two", "m@x=0.5", "m@x=1"]);
    assert_eq!(offered(&project, &["pipe", "get", "parts.t"]), ["parts.two"]);
    assert_eq!(offered(&project, &["pipe", "run", "p.yaml", "m@x=0"]), ["m@x=0.5"]);
    // The name of a member has a dot, and no output behind it.
    let got = project.run(&["get", "m@x=0.5", "half"]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert_eq!(std::fs::read_to_string(project.path("half")).unwrap(), "0.5\n");
    let wrong = project.run(&["get", "parts.three", "x"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("name one: parts.one, parts.two"), "{}", wrong.stderr);
    let wrong = project.run(&["get", "m@x=0.7", "x"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("help:"), "{}", wrong.stderr);
}

#[test]
fn the_log_of_a_stage_can_be_had_of_any_run() {
    let project = copying();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    std::fs::write(project.path("语料.txt"), "two").unwrap();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    assert!(project.run(&["log", "corpus"]).stdout.contains("the file `语料.txt` of `source` changed"));
    assert!(project.run(&["log", "corpus", "--run", "last~2"]).stdout.contains("never run"));
    assert!(project.run(&["log", "corpus", "--follow"]).stdout.contains("changed"), "what has ended is shown");

    let attempts = json(&project.run(&["log", "corpus", "--attempts", "--format", "json"]));
    let outcomes: Vec<_> = attempts["attempts"].as_array().unwrap().iter().map(|made| &made["outcome"]).collect();
    assert_eq!(outcomes, ["ran", "ran"], "the last run found it");
    let text = project.run(&["log", "corpus", "--attempts"]).stdout;
    assert_eq!(text.lines().count(), 3, "{text}");
    for (arguments, says) in [
        (&["log", "corpus", "--run", "last~2", "--attempt", "2"][..], "has no attempt 2 in the run"),
        (&["log", "crops"], "no run in "),
        (&["log", "crops", "--attempts"], "has a stage `crops`"),
        (&["log", "crops", "--run", "last"], "has no stage `crops`"),
    ] {
        let ran = project.run(arguments);
        assert!(ran.code == 2 && ran.stderr.contains(says) && ran.stderr.contains("help:"), "{}", ran.stderr);
    }
}

#[test]
fn every_attempt_has_its_log_and_the_best_figure_is_in_the_list() {
    let project = Project::new();
    let count = project.path("count");
    let text = format!(
        r#"
name: flaky
stages:
  flaky:
    kind: command
    retries: 2
    with:
      run: |
        echo "attempt" >> '{count}'
        echo "this is attempt $(wc -l < '{count}')"
        test "$(wc -l < '{count}')" -gt 2
        echo '{{"accuracy": 0.5, "loss": 2}}' > "$PIPE_METRICS"
        echo x > out.txt
      outputs: out.txt
"#,
        count = count.display()
    );
    std::fs::write(project.path("p.yaml"), text).unwrap();
    let ran = project.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    let shown = project.run(&["runs", "show"]).stdout;
    assert!(shown.contains("after 3 attempts") && shown.contains("accuracy 0.5000 · loss 2"), "{shown}");
    for (attempt, says) in [("1", "this is attempt 1"), ("2", "this is attempt 2"), ("3", "this is attempt 3")] {
        let log = project.run(&["log", "flaky", "--attempt", attempt]).stdout;
        assert!(log.contains(says) && log.matches("this is attempt").count() == 1, "{log}");
    }
    assert!(project.run(&["log", "flaky"]).stdout.contains("this is attempt 3"), "the last one");
    let attempts = json(&project.run(&["log", "flaky", "--attempts", "--format", "json"]));
    let made =
        |index: usize| (attempts["attempts"][index]["attempt"].as_u64(), &attempts["attempts"][index]["outcome"]);
    assert_eq!(made(0), (Some(3), &"ran".into()));
    assert_eq!(made(2), (Some(1), &"failed".into()));

    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    let list = project.run(&["runs"]).stdout;
    let results = list.lines().skip(1).filter(|line| line.ends_with("accuracy 0.5000 (flaky)")).count();
    assert_eq!(results, 2, "the run that only found it has it too:\n{list}");
}

#[test]
fn runs_and_their_stages_are_completed() {
    let project = copying();
    assert_eq!(offered(&project, &["pipe", "runs", "show", "l"]), [""; 0]);
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    let id = json(&project.run(&["runs", "show", "--format", "json"]))["id"].as_str().unwrap().to_owned();
    assert_eq!(offered(&project, &["pipe", "runs", "show", &id[..4]]), [id.as_str()]);
    assert_eq!(offered(&project, &["pipe", "runs", "diff", "la"]), ["last"]);
    assert_eq!(offered(&project, &["pipe", "log", "corpus", "--run", "l"]), ["last"]);
    assert_eq!(offered(&project, &["pipe", "log", "c"]), ["corpus"]);
}

#[test]
fn a_journal_cannot_steer_the_terminal_or_the_program() {
    let project = copying();
    assert_eq!(project.run(&["run", "p.yaml", "--set", "name=a"]).code, 0);
    let folder = project.path("home/runs");
    let journal = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    let text = std::fs::read_to_string(&journal).unwrap();
    let escape = r#"[\u001b[31mred\u0007"#;
    let forged =
        text.replace("never run", escape).replace("\"duration_seconds\":0", "\"duration_seconds\":9e300,\"rest\":0");
    assert!(forged.contains(escape) && forged.contains("9e300"), "{forged}");
    std::fs::write(&journal, forged).unwrap();
    for arguments in [&["runs"][..], &["runs", "show", "--reasons"], &["runs", "diff", "last", "last"]] {
        let ran = project.run(arguments);
        assert!(ran.code == 0 && !ran.stdout.contains('\u{1b}'), "{ran:?}", ran = ran.stdout);
    }
}
