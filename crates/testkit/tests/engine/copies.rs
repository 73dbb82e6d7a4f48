//! `outputs: PATH`: copies of outputs where the pipeline wants them.

use std::fs;

use pipe::{
    cache::{Home, Store},
    runs::{Outcome, RunStatus, Runs},
};

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
    // Without --keep-going, what takes from it begins or not: the failure may come first.
    let ran = project.run(&["--keep-going"]).unwrap();
    assert_eq!((ran.code(), ran.stages("stage_failed")), (1, vec!["hello".to_owned()]));
    let failure = &ran.events_of("stage_failed").next().unwrap()["failure"];
    let message = failure["chain"][0].as_str().unwrap();
    assert!(message.contains("results/hello") && message.contains("was changed since pipe wrote it"), "{message}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "my own words");

    // The journal has one end of the stage, and the artifact that is kept.
    let home = Home::open(project.home()).unwrap();
    let runs = Runs::new(&home);
    let run = runs.latest(|_| true).unwrap();
    assert_eq!((run.status, run.counts().failed, run.counts().ran), (RunStatus::Failed, 1, 1), "{run:?}");
    let hello = &run.stages["hello"];
    assert_eq!((hello.outcome, hello.attempts[0].outcome), (Outcome::Failed, Some(Outcome::Failed)));
    assert!(hello.error[0].contains("was changed since pipe wrote it"), "{:?}", hello.error);
    assert!(Store::new(&home).verify(&hello.outputs["out"]).is_ok());
    let ends = fs::read_to_string(runs.path(&run.id)).unwrap();
    let ends = ends.lines().filter(|line| line.contains("stage_ended") && line.contains("\"hello\"")).count();
    assert_eq!(ends, 1);

    // It stays so until the place is free again, though nothing has to run.
    let again = project.run(&[]).unwrap();
    assert_eq!((again.code(), again.started(), again.hits()), (1, vec![], vec!["halves".to_owned()]), "{again:?}");
    let run = runs.latest(|_| true).unwrap();
    assert_eq!((run.stages["hello"].outcome, run.stages["hello"].key), (Outcome::Failed, hello.key));
    fs::remove_file(&copy).unwrap();
    let after = project.run(&[]).unwrap();
    assert_eq!((after.code(), after.hits().len()), (0, 2), "{after:?}");
    assert_eq!(fs::read_to_string(&copy).unwrap(), "goodbye");
}

#[test]
fn what_takes_from_a_stage_does_not_wait_for_its_copies() {
    let project = project("name: copies\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let folder = gate.folder().display();
    let text = format!(
        "
name: copies
stages:
  data: {{ kind: wild, with: {{ text: data, trick: sparse, megabytes: 512 }}, outputs: results/data }}
  next: {{ kind: first_word, inputs: {{ text: data }} }}
  beside: {{ kind: write, with: {{ text: beside, gate: '{folder}' }} }}
"
    );
    project.write("pipeline.yaml", &text).unwrap();
    let running = project.start(&["--jobs", "2"]).unwrap();
    // Copies are made while another stage runs.
    let worker = gate.wait_for_worker().unwrap();
    let copy = project.folder().join("results/data/large");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !copy.exists() && std::time::Instant::now() < deadline {
        std::thread::park_timeout(std::time::Duration::from_millis(5));
    }
    assert!(copy.exists(), "the copy waits for another stage");
    worker.open().unwrap();
    let ran = running.finish().unwrap();
    assert_eq!((ran.code(), ran.stages("stage_finished").len()), (0, 3), "{ran:?}");
    assert_eq!(fs::metadata(copy).unwrap().len(), 512 << 20);
}
