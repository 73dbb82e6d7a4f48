//! A run and whoever removes things from the cache stay out of each other's way.

use pipe::cache::Home;

use crate::project;

const ONE: &str = "name: one\nstages:\n  a: { kind: write, with: { text: a } }\n";

#[test]
fn a_run_waits_until_the_cache_is_cleaned_up_and_says_for_whom() {
    let project = project(ONE);
    project.run(&[]).unwrap();
    let home = Home::open(project.home()).unwrap();
    let alone = home.exclusive(false).unwrap().unwrap();
    let mut running = project.start(&[]).unwrap();
    let busy = running.wait_for("cache_busy").unwrap();
    assert!(busy["holder"].as_str().unwrap().starts_with(&format!("process {} on ", std::process::id())), "{busy}");
    drop(alone);
    let ran = running.finish().unwrap();
    assert_eq!((ran.code(), ran.hits()), (0, vec!["a".to_owned()]));
}

#[test]
fn nothing_is_removed_while_a_run_goes_on() {
    let project = project(ONE);
    let gate = project.gate("gate").unwrap();
    let text = format!(
        "name: one\nstages:\n  a: {{ kind: write, with: {{ text: a, gate: '{}' }} }}\n",
        gate.folder().display()
    );
    project.write("pipeline.yaml", &text).unwrap();
    let running = project.start(&[]).unwrap();
    let worker = gate.wait_for_worker().unwrap();
    let home = Home::open(project.home()).unwrap();
    assert!(home.exclusive(false).unwrap().is_none());
    worker.open().unwrap();
    assert_eq!(running.finish().unwrap().code(), 0);
    assert!(home.exclusive(false).unwrap().is_some());
}
