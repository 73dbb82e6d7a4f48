//! Objects that are not what they were: never passed on, set aside, named, and made again.

use std::{
    fs::{self, File, FileTimes, Permissions},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
};

use pipe::cache::{Checkout, Home, Store};
use pipe_testkit::{Project, Ran};

use crate::project;

const TWO: &str = "
name: two
stages:
  text: { kind: write, with: { text: one two three } }
  word: { kind: first_word, inputs: { text: text } }
";

/// The object that holds these bytes.
fn object(project: &Project, bytes: &str) -> PathBuf {
    let shards = fs::read_dir(project.home().join("objects")).unwrap();
    let mut objects = shards.flat_map(|shard| fs::read_dir(shard.unwrap().path()).unwrap());
    let found = objects.find(|object| fs::read(object.as_ref().unwrap().path()).unwrap() == bytes.as_bytes());
    found.unwrap().unwrap().path()
}

/// Writes other bytes into a file and makes it look as it looked before, as far as a program can.
fn damage(path: &Path, bytes: &[u8]) {
    let before = fs::metadata(path).unwrap();
    fs::set_permissions(path, Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
    fs::set_permissions(path, before.permissions()).unwrap();
    let times = FileTimes::new().set_modified(before.modified().unwrap()).set_accessed(before.accessed().unwrap());
    File::open(path).unwrap().set_times(times).unwrap();
    let after = fs::metadata(path).unwrap();
    assert_eq!((after.mode(), after.mtime_nsec()), (before.mode(), before.mtime_nsec()));
}

/// Why the only stage that ran did so.
fn reasons(ran: &Ran) -> (String, String) {
    let mut started = ran.events_of("stage_started");
    let event = started.next().unwrap_or_else(|| panic!("nothing ran: {ran:?}"));
    assert_eq!(started.next(), None);
    (event["stage"].as_str().unwrap().to_owned(), event["reasons"].to_string())
}

#[test]
fn a_damaged_object_is_named_set_aside_and_made_again() {
    for (how, bytes) in [("flipped", &b"one twp three"[..]), ("truncated", b"one two"), ("emptied", b"")] {
        let project = project(TWO);
        project.run(&[]).unwrap();
        assert_eq!(project.run(&[]).unwrap().hits().len(), 2);
        let object = object(&project, "one two three");
        damage(&object, bytes);

        let next = project.run(&[]).unwrap();
        assert_eq!(next.code(), 0, "{how}: {next:?}");
        let (stage, why) = reasons(&next);
        assert_eq!(stage, "text", "{how}: what was made of it is still right");
        assert!(why.contains("output `out` is damaged (`text.txt`)"), "{how}: {why}");
        assert_eq!(fs::read(&object).unwrap(), b"one two three", "{how}");
        let aside: Vec<_> = fs::read_dir(project.home().join("quarantine")).unwrap().collect();
        assert_eq!(fs::read(aside[0].as_ref().unwrap().path()).unwrap(), bytes, "{how}");
        assert_eq!(project.run(&[]).unwrap().hits().len(), 2, "{how}");
    }
}

#[test]
fn a_damaged_input_never_reaches_a_worker() {
    let project = project(TWO);
    project.run(&["text"]).unwrap();
    damage(&object(&project, "one two three"), b"odd two three");
    let next = project.run(&[]).unwrap();
    assert_eq!((next.code(), next.started()), (0, vec!["text".to_owned(), "word".to_owned()]));
    assert_eq!(project.text(&next, "word", "out").unwrap(), "one");
}

#[test]
fn a_damaged_object_is_never_copied_to_where_it_is_wanted() {
    for (how, bytes) in [("flipped", &b"one twp three"[..]), ("truncated", b"one two"), ("emptied", b"")] {
        let project = project(&TWO.replace("three } }", "three }, outputs: results/text }"));
        let ran = project.run(&[]).unwrap();
        let digest = ran.events_of("stage_finished").find(|event| event["stage"] == "text").unwrap()["outputs"]["out"]
            .as_str()
            .unwrap()
            .parse()
            .unwrap();
        let copy = project.folder().join("results/text/text.txt");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "one two three");
        let object = object(&project, "one two three");
        damage(&object, bytes);

        // As `pipe get` asks for it.
        let store = Store::new(&Home::open(project.home()).unwrap());
        let place = project.folder().join("taken out");
        let refused = store.checkout_to(&digest, &place, Checkout::default()).unwrap_err().to_string();
        assert!(refused.contains("`text.txt` is damaged in the cache"), "{how}: {refused}");
        assert!(refused.contains("is now in quarantine); run the pipeline to make it again"), "{how}: {refused}");
        assert!(!place.exists() && !object.exists(), "{how}");

        // As a run does.
        fs::remove_file(&copy).unwrap();
        let next = project.run(&[]).unwrap();
        assert_eq!((next.code(), next.started()), (0, vec!["text".to_owned()]), "{how}: {next:?}");
        assert_eq!(fs::read_to_string(&copy).unwrap(), "one two three", "{how}");
        store.checkout_to(&digest, &place, Checkout::default()).unwrap();
        assert_eq!(fs::read_to_string(place.join("text.txt")).unwrap(), "one two three", "{how}");
    }
}

#[test]
fn a_lost_object_and_a_damaged_list_of_files_are_made_again() {
    let project = project(TWO);
    project.run(&[]).unwrap();
    fs::remove_file(object(&project, "one two three")).unwrap();
    assert!(reasons(&project.run(&[]).unwrap()).1.contains("is missing"));

    for entry in fs::read_dir(project.home().join("objects")).unwrap() {
        for object in fs::read_dir(entry.unwrap().path()).unwrap() {
            let path = object.unwrap().path();
            let bytes = fs::read(&path).unwrap();
            if bytes.len() > 20 {
                damage(&path, &bytes[..bytes.len() - 1]);
            }
        }
    }
    let next = project.run(&[]).unwrap();
    assert_eq!((next.code(), next.started()), (0, vec!["text".to_owned(), "word".to_owned()]), "{next:?}");
    assert_eq!(project.text(&next, "word", "out").unwrap(), "one");
}

#[test]
fn a_rerun_that_fails_half_way_leaves_the_last_good_output() {
    let project = project("name: one\nstages:\n  text: { kind: write, with: { text: good } }\n");
    let good = project.run(&[]).unwrap();
    for behaviour in ["fail", "abort", "write_nothing"] {
        let set = format!("stages.text.with.behaviour={behaviour}");
        let failed = project.run(&["--set", "stages.text.with.text=bad", "--set", &set]).unwrap();
        assert_eq!(failed.code(), 1, "{behaviour}");
        assert_eq!(project.text(&good, "text", "out").unwrap(), "good", "{behaviour}");
        assert_eq!(project.run(&[]).unwrap().hits(), ["text"], "{behaviour}");
    }
}
