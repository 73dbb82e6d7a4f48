//! `pipe cache` and `pipe get`: looking after what is stored, and taking it out.

use std::{
    fs::{self, FileTimes, Permissions},
    io::{BufRead, BufReader},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Stdio,
};

use serde_json::Value;

use super::{Project, Ran};

const PIPELINE: &str = "
name: 数据
stages:
  corpus: { kind: download, with: { source: 'file://data' } }
";

/// A project whose pipeline has run once.
fn ran() -> Project {
    let project = Project::new();
    fs::create_dir_all(project.path("data/名 前")).unwrap();
    fs::write(project.path("data/chat.jsonl"), "{\"text\": \"你好\"}\n").unwrap();
    fs::write(project.path("data/名 前/two\nlines 🎉"), "odd\n").unwrap();
    fs::write(project.path("p.yaml"), PIPELINE).unwrap();
    let ran = project.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    project
}

/// The object that holds this text.
fn object(project: &Project, text: &str) -> PathBuf {
    let name = pipe_stage::Digest::of(text.as_bytes()).to_string();
    project.path("home/objects").join(&name[..2]).join(&name[2..])
}

/// Changes a byte of a file, and puts size, time and mode back.
fn flip(path: &Path) {
    let metadata = fs::metadata(path).unwrap();
    let mut bytes = fs::read(path).unwrap();
    bytes[0] ^= 1;
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    let times = FileTimes::new().set_modified(metadata.modified().unwrap());
    fs::File::options().write(true).open(path).unwrap().set_times(times).unwrap();
    fs::set_permissions(path, metadata.permissions()).unwrap();
}

fn json(ran: &Ran) -> Value {
    serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {}", ran.stdout))
}

#[test]
fn names_of_all_kinds_go_in_and_come_out() {
    let project = ran();
    assert_eq!(project.run(&["get", "corpus", "out"]).code, 0);
    assert_eq!(fs::read_to_string(project.path("out/名 前/two\nlines 🎉")).unwrap(), "odd\n");
}

#[test]
fn a_damaged_object_is_refused_by_get_named_and_made_again_by_the_next_run() {
    for damage in [flip, |path: &Path| {
        fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
        fs::write(path, "").unwrap();
    }] {
        let project = ran();
        damage(&object(&project, "odd\n"));
        let refused = project.run(&["get", "corpus", "out"]);
        assert_eq!(refused.code, 3, "{}", refused.stderr);
        let short = pipe_stage::Digest::of(b"odd\n").short();
        let named = "its file `名 前/two\\nlines 🎉` is damaged in the cache";
        assert!(refused.stderr.contains(named) && refused.stderr.contains(&short), "{}", refused.stderr);
        assert!(!project.path("out").exists() && !object(&project, "odd\n").exists());

        let again = project.run(&["run", "p.yaml"]);
        assert_eq!(again.code, 0, "{}", again.stderr);
        assert!(again.stderr.contains(&format!("object {short} is in quarantine")), "{}", again.stderr);
        assert_eq!(project.run(&["get", "corpus", "out"]).code, 0);
    }
}

#[test]
fn verify_is_0_for_a_whole_cache_and_1_with_the_damage_named() {
    let project = ran();
    let whole = project.run(&["cache", "verify"]);
    assert_eq!((whole.code, whole.stdout.as_str()), (0, "whole: 3 objects (214 B) and 1 action record read\n"));

    flip(&object(&project, "odd\n"));
    let short = pipe_stage::Digest::of(b"odd\n").short();
    for _ in 0..2 {
        let damaged = project.run(&["cache", "verify"]);
        assert_eq!(damaged.code, 1, "{}", damaged.stdout);
        let lines: Vec<&str> = damaged.stdout.lines().collect();
        assert_eq!(lines[0], format!("damaged object {short}: its bytes have changed"));
        assert!(lines[1].starts_with("  `名 前/two\\nlines 🎉` of `corpus` (run 2"), "{lines:?}");
        assert!(lines[1].ends_with(" of 数据)"), "{lines:?}");
        assert_eq!(lines[2], format!("  can be made again: pipe run {} corpus", project.path("p.yaml").display()));
        assert!(object(&project, "odd\n").exists(), "to look changes nothing");
    }
    let repaired = project.run(&["cache", "verify", "--repair", "--format", "json"]);
    assert_eq!(repaired.code, 1, "{}", repaired.stdout);
    let damage = &json(&repaired)["damages"][0];
    assert_eq!((damage["harm"].as_str(), damage["set_aside"].as_bool()), (Some("damaged"), Some(true)));
    assert_eq!(damage["fate"]["rebuild"][0]["stage"], "corpus");
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    assert_eq!(project.run(&["cache", "verify"]).code, 0);
}

#[test]
fn what_cannot_be_made_again_is_named_with_the_reason() {
    let project = ran();
    flip(&object(&project, "odd\n"));
    let lost = |project: &Project| {
        let ran = project.run(&["cache", "verify"]);
        assert_eq!(ran.code, 1);
        let lost =
            ran.stdout.lines().find(|line| line.starts_with("  lost: ")).unwrap_or_else(|| panic!("{}", ran.stdout));
        lost["  lost: ".len()..].to_owned()
    };
    let data = project.path("data");
    fs::write(data.join("chat.jsonl"), "edited").unwrap();
    assert_eq!(lost(&project), format!("`{}` holds something else now", data.display()));
    fs::remove_dir_all(&data).unwrap();
    assert_eq!(lost(&project), format!("`{}` is gone", data.display()));
    let actions = fs::read_dir(project.path("home/actions")).unwrap().map(|entry| entry.unwrap().path());
    actions.for_each(|record| fs::remove_file(record).unwrap());
    assert_eq!(lost(&project), "no record tells how it was made");
}

/// Runs the pipeline on other data, and gives the text.
fn run_with(project: &Project, text: &str) -> String {
    fs::write(project.path("data/chat.jsonl"), text).unwrap();
    let ran = project.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    text.to_owned()
}

#[test]
fn without_a_rule_gc_removes_only_what_no_run_needs() {
    let project = ran();
    let old = run_with(&project, "old");
    run_with(&project, "new");
    fs::write(project.path("home/tmp/left"), "12345").unwrap();
    let dry = json(&project.run(&["cache", "gc", "--dry-run", "--format", "json"]));
    assert_eq!(
        (dry["goes"]["objects"]["files"].as_u64(), dry["goes"]["scratch"]["bytes"].as_u64()),
        (Some(0), Some(5))
    );
    assert!(project.path("home/tmp/left").exists());
    let ran = project.run(&["cache", "gc"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(
        ran.stdout.contains("\n0 runs gone, 3 kept: 1 last of their pipeline, 2 with no rule to let them go\n"),
        "{}",
        ran.stdout
    );
    assert!(ran.stdout.ends_with("--keep-last N, --older-than 30d\n"), "{}", ran.stdout);
    assert!(!project.path("home/tmp/left").exists() && object(&project, &old).exists());
}

#[test]
fn gc_lets_old_runs_go_with_what_only_they_need() {
    let project = ran();
    let old = run_with(&project, "old");
    let new = run_with(&project, "new");
    let (old, new) = (object(&project, &old), object(&project, &new));
    assert_eq!(project.run(&["cache", "gc", "--older-than", "1h"]).code, 0);
    assert!(old.exists(), "it is not that old");

    let dry = project.run(&["cache", "gc", "--keep-last", "1", "--dry-run"]);
    assert!(dry.stdout.contains("2 runs would go, 1 kept: 1 last of their pipeline\n"), "{}", dry.stdout);
    assert!(
        dry.stdout.contains("the largest artifacts of these:\n") && dry.stdout.contains("`corpus`, run 2"),
        "{}",
        dry.stdout
    );
    assert!(old.exists());
    let ran = project.run(&["cache", "gc", "--keep-last", "1"]);
    assert!(ran.code == 0 && ran.stdout.contains("2 runs gone, 1 kept"), "{} {}", ran.stdout, ran.stderr);
    assert!(!old.exists() && new.exists());
    assert_eq!(project.run(&["cache", "verify"]).code, 0);
    let again = project.run(&["run", "p.yaml"]);
    assert!(again.stderr.starts_with("up to date: 1 stage"), "{}", again.stderr);
    assert_eq!(json(&project.run(&["runs", "--format", "json"]))["total"], 2);
    assert_eq!(project.run(&["cache", "gc", "--older-than", "soon"]).code, 2);
}

#[test]
fn gc_says_for_whom_it_keeps_and_that_nothing_needs_what_goes() {
    let project = ran();
    let old = project.run(&["runs", "show", "--format", "json"]);
    let old = json(&old)["id"].as_str().unwrap().to_owned();
    run_with(&project, "new");
    let new = json(&project.run(&["runs", "show", "--format", "json"]))["id"].as_str().unwrap().to_owned();
    assert_eq!(project.run(&["run", "p.yaml"]).code, 0);
    let last = json(&project.run(&["runs", "show", "--format", "json"]))["id"].as_str().unwrap().to_owned();

    let arguments = ["cache", "gc", "--keep-last", "2", "--dry-run", "--explain"];
    let dry = project.run(&arguments).stdout;
    let kept = format!("\nstays, because it is needed\n  by run {last} (last of its pipeline)\n");
    assert!(dry.contains(&kept) && dry.contains("  and by 1 other run\n"), "{dry}");
    let goes = format!("\nwould go, because nothing needs it\n  of run {old}, which goes\n");
    assert!(dry.contains(&goes), "{dry}");
    assert!(dry.contains("action records            under keys that no run"), "{dry}");
    let explained = &dry[dry.find("stays, because").unwrap()..];
    assert!(explained.lines().all(|line| line.chars().count() <= 80), "{dry}");

    let why = json(&project.run(&[&arguments[..], &["--format", "json"]].concat()))["why"].clone();
    let stays = why["stays"].as_array().unwrap();
    assert_eq!(stays.len(), 1);
    let by: Vec<_> = stays[0]["needed_by"].as_array().unwrap().iter().map(|by| (&by["what"], &by["run"])).collect();
    assert_eq!(by.len(), 3, "{why}");
    assert_eq!((by[0].1, by[1].1, by[2].0), (&last.into(), &new.into(), &"pipeline".into()));
    assert_eq!((why["goes"].as_array().unwrap().len(), &why["goes"][0]["run"]), (1, &old.into()));

    let ran = project.run(&["cache", "gc", "--keep-last", "2", "--explain"]);
    assert!(ran.code == 0 && ran.stdout.contains("\ngone, because nothing needed it\n"), "{}", ran.stdout);
    let again = project.run(&["cache", "gc", "--explain"]).stdout;
    assert!(!again.contains("nothing needed it"), "{again}");
}

#[test]
fn another_project_in_the_same_cache_keeps_its_artifacts() {
    let project = ran();
    fs::create_dir(project.path("other")).unwrap();
    fs::write(project.path("other/theirs"), "theirs").unwrap();
    fs::write(project.path("q.yaml"), PIPELINE.replace("file://data", "file://other")).unwrap();
    assert_eq!(project.run(&["run", "q.yaml"]).code, 0);
    run_with(&project, "new");
    assert_eq!(project.run(&["cache", "gc", "--keep-last", "1", "--older-than", "0s"]).code, 0);
    assert!(object(&project, "theirs").exists() && object(&project, "new").exists());

    fs::remove_file(project.path("q.yaml")).unwrap();
    assert_eq!(project.run(&["cache", "gc", "--older-than", "0s"]).code, 0);
    assert!(!object(&project, "theirs").exists(), "its pipeline is gone, and its runs are old");
    assert!(object(&project, "new").exists());
}

#[test]
fn gc_gives_up_or_waits_while_somebody_uses_the_cache() {
    let project = ran();
    let home = pipe::cache::Home::open(project.path("home")).unwrap();
    let in_use = home.share(|_| ()).unwrap();
    let refused = project.run(&["cache", "gc"]);
    assert!(
        refused.code == 3 && refused.stderr.contains("is in use by another process: wait until"),
        "{}",
        refused.stderr
    );
    assert_eq!(project.run(&["cache", "gc", "--dry-run"]).code, 0);

    let mut waiting = project.command(&["cache", "gc", "--wait"]);
    let mut waiting = waiting.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(waiting.stderr.as_mut().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "waiting for another process, which uses the cache\n");
    drop(in_use);
    assert!(waiting.wait().unwrap().success());
}

#[test]
fn gc_removes_nothing_while_it_is_not_known_what_a_run_needs() {
    let project = ran();
    let old = object(&project, &run_with(&project, "old"));
    run_with(&project, "new");
    let journal = fs::read_dir(project.path("home/runs")).unwrap().map(|entry| entry.unwrap().path()).max().unwrap();
    let text = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, text.replace("stage_began", "stage_flew")).unwrap();
    let refused = project.run(&["cache", "gc", "--keep-last", "1"]);
    assert_eq!(refused.code, 3, "{}", refused.stderr);
    assert!(refused.stderr.contains("so what it needs is not known; nothing was removed"), "{}", refused.stderr);
    assert!(!refused.stderr.contains("because:"), "it is said once: {}", refused.stderr);
    assert!(refused.stderr.contains(&format!("remove {}", journal.display())), "{}", refused.stderr);
    assert!(old.exists());
}

#[test]
fn du_tells_what_pipelines_stages_and_runs_take_and_counts_what_they_share_once() {
    let project = ran();
    run_with(&project, "12345678");
    let du = json(&project.run(&["cache", "du", "--format", "json"]));
    let share = &du["pipelines"][0]["share"];
    assert_eq!((du["pipelines"][0]["pipeline"].as_str(), share["artifacts"].as_u64()), (Some("数据"), Some(2)));
    assert_eq!(share["bytes"], du["needed"]["objects"]["bytes"]);
    assert_eq!(share["bytes"], share["only_bytes"]);
    let runs = du["runs"].as_array().unwrap();
    let sizes: Vec<(u64, u64)> = runs
        .iter()
        .map(|run| (run["share"]["bytes"].as_u64().unwrap(), run["share"]["only_bytes"].as_u64().unwrap()))
        .collect();
    assert!(sizes.iter().all(|(bytes, only)| bytes - only == 4), "both hold `odd\\n`: {sizes:?}");
    assert_eq!(du["unneeded"]["objects"]["files"], 0);

    let text = project.run(&["cache", "du"]).stdout;
    assert!(text.contains("corpus  数据\n") && text.contains("B in 5 objects; what several share"), "{text}");
}

#[test]
fn where_there_is_no_cache_there_is_nothing_to_look_after() {
    let project = Project::new();
    let ran = project.run(&["cache", "verify"]);
    assert!(ran.code == 2 && ran.stderr.contains("there is no cache at"), "{}", ran.stderr);
    assert!(!project.path("home").exists());
}
