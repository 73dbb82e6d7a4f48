//! `pipe cache` and `pipe get`: looking after what is stored, and taking it out.

use std::{
    fs::{self, FileTimes, Permissions},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
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

#[test]
fn where_there_is_no_cache_there_is_nothing_to_look_after() {
    let project = Project::new();
    let ran = project.run(&["cache", "verify"]);
    assert!(ran.code == 2 && ran.stderr.contains("there is no cache at"), "{}", ran.stderr);
    assert!(!project.path("home").exists());
}
