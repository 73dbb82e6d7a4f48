//! Tests of the file and of what is asked.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use super::*;
use crate::config::ConfigError;

fn problems(text: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(FILE_NAME), text).unwrap();
    let PinsError::Invalid(error) = Pins::load(folder.path()).unwrap_err() else { panic!("{text}") };
    let ConfigError::Invalid { problems, .. } = &error else { panic!("{error}") };
    let shown: Vec<String> = error
        .to_json()
        .as_array()
        .unwrap()
        .iter()
        .zip(problems)
        .map(|(place, problem)| format!("{}:{} {}", place["line"], place["column"], problem.message))
        .collect();
    shown.join("; ")
}

fn names(folder: &Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn what_is_written_is_read_again_and_what_was_there_stays() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(Pins::load(folder.path()).unwrap(), Pins::default());
    let mut one = Pins::default();
    one.set("hf://Qwen/Qwen3-0.6B", "c1899de289a04d12100db370d81485cdf75e47ca");
    one.add_to(folder.path()).unwrap();
    let path = folder.path().join(FILE_NAME);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
    let mut two = Pins::default();
    two.set("ms://通义/模型@版本: #1", "yes");
    let both = two.add_to(folder.path()).unwrap();
    assert_eq!(both.get("hf://Qwen/Qwen3-0.6B"), Some("c1899de289a04d12100db370d81485cdf75e47ca"));
    assert_eq!(both, Pins::load(folder.path()).unwrap());
    assert_eq!(both.get("ms://通义/模型@版本: #1"), Some("yes"));
    assert_eq!(names(folder.path()), [FILE_NAME], "nothing else is left in the user's folder");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o664);
    assert!(fs::read_to_string(&path).unwrap().starts_with("# Which version"));
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let folder = folder.path();
            scope.spawn(move || {
                for number in 0..8 {
                    let mut pins = Pins::default();
                    pins.set(&format!("{writer}-{number}"), "x");
                    pins.add_to(folder).unwrap();
                }
            });
        }
    });
    let pins = Pins::load(folder.path()).unwrap();
    assert!((0..8).all(|writer| (0..8).all(|number| pins.get(&format!("{writer}-{number}")) == Some("x"))));
}

#[test]
fn a_file_that_says_something_else_is_refused_at_its_place() {
    assert_eq!(problems("[1]"), "1:1 expected one field `pins`");
    assert_eq!(problems("sources: {}"), "1:1 expected the field `pins`, found `sources`");
    assert_eq!(problems("pins: 3"), "1:7 expected names and what they stand for, found `3`");
    assert_eq!(problems("pins:\n  a: b\n  c: []\n"), "3:6 `c` stands for a list");
    assert!(problems("pins:\n  a: b\n  a: c\n").starts_with("3:3 "), "{}", problems("pins:\n  a: b\n  a: c\n"));
    assert_eq!(problems("pins:\n<<<<<<< ours\n  a: b\n=======\n"), "2:1 the file has a merge conflict");
}

#[test]
fn an_empty_file_pins_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for text in ["", "# nothing\n", "pins: {}\n"] {
        fs::write(folder.path().join(FILE_NAME), text).unwrap();
        assert_eq!(Pins::load(folder.path()).unwrap(), Pins::default(), "{text:?}");
    }
}
