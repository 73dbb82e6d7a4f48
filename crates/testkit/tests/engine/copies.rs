//! `outputs: PATH`: copies of outputs where the pipeline wants them.

use std::fs;

use crate::project;

const TEXT: &str = "
name: copies
stages:
  hello: { kind: write, with: { text: hello world }, outputs: results/hello }
  halves: { kind: halves, inputs: { text: hello }, outputs: { left: results/left } }
";

#[test]
fn a_copy_is_put_in_its_place_and_follows_the_output() {
    let project = project(TEXT);
    let read = |path: &str| fs::read_to_string(project.folder().join(path)).unwrap();
    assert_eq!(project.run(&[]).unwrap().code(), 0);
    assert_eq!((read("results/hello/text.txt"), read("results/left/text.txt")), ("hello world".into(), "hello".into()));

    // A copy that is gone comes back although nothing has to run.
    fs::remove_dir_all(project.folder().join("results/left")).unwrap();
    let again = project.run(&[]).unwrap();
    assert_eq!((again.code(), again.started()), (0, vec![]));
    assert_eq!(read("results/left/text.txt"), "hello");

    project.write("pipeline.yaml", &TEXT.replace("hello world", "goodbye wo")).unwrap();
    assert_eq!(project.run(&[]).unwrap().code(), 0);
    assert_eq!((read("results/hello/text.txt"), read("results/left/text.txt")), ("goodbye wo".into(), "goodb".into()));
}

#[test]
fn a_copy_that_somebody_edited_is_left_alone_and_said() {
    let project = project(TEXT);
    assert_eq!(project.run(&[]).unwrap().code(), 0);
    let copy = project.folder().join("results/hello/text.txt");
    fs::write(&copy, "my own words").unwrap();
    project.write("pipeline.yaml", &TEXT.replace("hello world", "goodbye")).unwrap();
    let ran = project.run(&[]).unwrap();
    assert_eq!((ran.code(), ran.stages("stage_failed")), (1, vec!["hello".to_owned()]));
    let failure = &ran.events_of("stage_failed").next().unwrap()["failure"];
    let message = failure["chain"][0].as_str().unwrap();
    assert!(message.contains("results/hello") && message.contains("was changed since pipe wrote it"), "{message}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "my own words");
    assert!(ran.stages("stage_finished").contains(&"hello".to_owned()), "the artifact itself is kept");
}
