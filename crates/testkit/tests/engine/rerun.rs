//! What runs again, and what does not.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use crate::project;

const CHAIN: &str = "
name: chain
stages:
  hello: { kind: write, with: { text: hello world } }
  word: { kind: first_word, inputs: { text: hello } }
  twice: { kind: concat, inputs: { parts: [word, word] }, with: { separator: '-' } }
";

#[test]
fn the_first_run_makes_everything_and_the_second_finds_it() {
    let project = project(CHAIN);
    let first = project.run(&[]).unwrap();
    assert_eq!((first.code(), first.errors.as_str()), (0, ""));
    assert_eq!(first.started(), ["hello", "word", "twice"]);
    assert_eq!(project.text(&first, "twice", "out").unwrap(), "hello-hello");
    assert!(first.events_of("stage_started").all(|event| event["reasons"][0] == "never run"), "{first:?}");

    let second = project.run(&[]).unwrap();
    assert_eq!((second.code(), second.started().len()), (0, 0));
    assert_eq!(second.hits(), ["hello", "word", "twice"]);
    let end = second.events.last().unwrap();
    assert_eq!((end["event"].as_str(), end["outcome"].as_str()), (Some("run_finished"), Some("done")));
    assert_eq!((end["ran"].as_u64(), end["hits"].as_u64()), (Some(0), Some(3)));

    let told = project.run(&["--text"]).unwrap();
    assert!(told.errors.starts_with("up to date: 3 stages (") && told.errors.lines().count() == 1, "{}", told.errors);
}

#[test]
fn after_a_first_run_the_next_one_needs_no_records() {
    let mut pipeline = "name: long\nstages:\n  s0: { kind: write, with: { text: hello world } }\n".to_owned();
    for number in 1..=8 {
        pipeline += &format!("  s{number}: {{ kind: concat, inputs: {{ parts: [s{}, s0] }} }}\n", number - 1);
    }
    let project = project(&pipeline);
    assert_eq!(project.run(&[]).unwrap().started().len(), 9);
    // What was made within the last tick of the clock is not vouched for: the first stage was made long before.
    fs::remove_dir_all(project.home().join("actions")).unwrap();
    let second = project.run(&["s0"]).unwrap();
    assert_eq!((second.started().len(), second.hits()), (0, vec!["s0".to_owned()]));
}

#[test]
fn a_changed_value_reruns_its_stage_and_what_depends_on_it() {
    let project = project(CHAIN);
    project.run(&[]).unwrap();

    let last = project.run(&["--set", "stages.twice.with.separator=+"]).unwrap();
    assert_eq!((last.started(), last.hits()), (vec!["twice".to_owned()], vec!["hello".to_owned(), "word".to_owned()]));
    let reasons = last.events_of("stage_started").next().unwrap()["reasons"].to_string();
    assert!(reasons.contains("separator") && reasons.contains('-') && reasons.contains('+'), "{reasons}");
    assert_eq!(project.text(&last, "twice", "out").unwrap(), "hello+hello");

    let first = project.run(&["--set", "stages.hello.with.text=good morning"]).unwrap();
    assert_eq!(first.started(), ["hello", "word", "twice"]);
    assert_eq!(project.text(&first, "twice", "out").unwrap(), "good-good");
}

#[test]
fn a_rerun_with_the_same_output_leaves_its_dependents_alone() {
    let project = project(CHAIN);
    project.run(&[]).unwrap();
    let again = project.run(&["--set", "stages.hello.with.text=hello again"]).unwrap();
    assert_eq!(again.started(), ["hello", "word"]);
    assert_eq!(again.hits(), ["twice"]);
}

#[test]
fn what_was_made_once_is_found_again_later() {
    let project = project(CHAIN);
    project.run(&[]).unwrap();
    project.run(&["--set", "stages.hello.with.text=good morning"]).unwrap();
    let back = project.run(&[]).unwrap();
    assert_eq!(back.hits().len(), 3);
}

#[test]
fn a_value_that_only_guides_the_execution_changes_nothing() {
    let project = project(CHAIN);
    project.run(&[]).unwrap();
    let ran = project.run(&["--set", "stages.hello.with.behaviour=babble"]).unwrap();
    assert_eq!(ran.hits().len(), 3, "{ran:?}");
}

#[test]
fn a_target_takes_what_it_needs_and_no_more() {
    let project = project(CHAIN);
    let ran = project.run(&["word"]).unwrap();
    assert_eq!((ran.code(), ran.started()), (0, vec!["hello".to_owned(), "word".to_owned()]));
}

#[test]
fn outputs_are_taken_by_name() {
    let project = project(
        "
name: named
stages:
  text: { kind: write, with: { text: eastwest } }
  parts: { kind: halves, inputs: { text: text } }
  swapped: { kind: concat, inputs: { parts: [parts.right, parts.left] }, with: { separator: '|' } }
",
    );
    let ran = project.run(&[]).unwrap();
    assert_eq!(project.text(&ran, "parts", "left").unwrap(), "east");
    assert_eq!(project.text(&ran, "swapped", "out").unwrap(), "west|east");
}

#[test]
fn a_file_of_the_users_counts_by_its_content() {
    let project = project(
        "
name: files
stages:
  copy: { kind: copy_file, with: { path: 语料.txt } }
  word: { kind: first_word, inputs: { text: copy } }
",
    );
    project.write("语料.txt", "你好 世界").unwrap();
    let first = project.run(&[]).unwrap();
    assert_eq!(project.text(&first, "word", "out").unwrap(), "你好");

    project.write("语料.txt", "你好 世界").unwrap();
    assert_eq!(project.run(&[]).unwrap().hits().len(), 2, "written again with the same content");

    project.write("语料.txt", "你们 世界").unwrap();
    let changed = project.run(&[]).unwrap();
    assert_eq!(project.text(&changed, "word", "out").unwrap(), "你们");

    fs::remove_file(project.folder().join("语料.txt")).unwrap();
    let missing = project.run(&[]).unwrap();
    assert_eq!((missing.code(), missing.events.len()), (2, 0));
    assert!(missing.errors.contains("语料.txt"), "{}", missing.errors);
}

#[test]
fn a_damaged_artifact_is_made_again() {
    let project = project(CHAIN);
    project.run(&[]).unwrap();
    let object = find(&project.home().join("objects"), b"hello world").unwrap();
    let modified = fs::metadata(&object).unwrap().modified().unwrap();
    fs::set_permissions(&object, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(&object, b"hellO world").unwrap();
    fs::File::options().write(true).open(&object).unwrap().set_modified(modified).unwrap();

    let mended = project.run(&[]).unwrap();
    assert_eq!(mended.started(), ["hello"], "{mended:?}");
    assert_eq!(mended.hits(), ["word", "twice"]);
    assert_eq!(project.text(&mended, "hello", "out").unwrap(), "hello world");
}

fn find(folder: &Path, content: &[u8]) -> Option<std::path::PathBuf> {
    fs::read_dir(folder).unwrap().find_map(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() { find(&path, content) } else { (fs::read(&path).unwrap() == content).then_some(path) }
    })
}
