//! `pipe get`: whatever its name, a stage's output is found.

use super::Project;

const PIPELINE: &str = "
stages:
  two:
    kind: command
    matrix: { rate: [0.01, 1] }
    with: { run: 'echo ${matrix.rate} > a; echo b > b', outputs: [a, b] }
  named:
    kind: command
    matrix: { rate: [0.5] }
    with: { run: 'echo ${matrix.rate} > x', outputs: { model: x } }
  one: { kind: command, inputs: { all: named }, with: { run: 'cat all/*/* all/* > x 2> /dev/null || true', outputs: x } }
";

fn project() -> Project {
    let project = Project::new();
    std::fs::write(project.path("p.yaml"), PIPELINE).unwrap();
    let ran = project.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    project
}

#[test]
fn values_of_a_matrix_may_hold_dots() {
    let project = project();
    for (output, text) in [("two@rate=0.01.a", "0.01\n"), ("two@rate=1.b", "b\n"), ("named@rate=0.5", "0.5\n")] {
        let got = project.run(&["get", output, output]);
        assert_eq!(got.code, 0, "{output}: {}", got.stderr);
        assert_eq!(std::fs::read_to_string(project.path(output)).unwrap(), text);
    }
    let got = project.run(&["get", "named@rate=0.5.model", "x"]);
    assert_eq!(got.code, 0, "{}", got.stderr);
}

#[test]
fn what_is_not_there_is_said_with_what_is() {
    let project = project();
    let said = |output: &str| {
        let got = project.run(&["get", output, "nothing"]);
        assert!(got.code == 2 && !project.path("nothing").exists(), "{}", got.stderr);
        got.stderr
    };
    assert!(said("two@rate=0.01").contains("has 2 outputs\n   help: name one: two@rate=0.01.a, two@rate=0.01.b"));
    assert!(said("two@rate=1.c").contains("`two@rate=1` has no output `c`"));
    assert!(said("one.c").contains("`one` has no output `c`\n   help: it has one: name `one`"));
    assert!(said("two@rate=7").contains("has a stage `two@rate=7`"));

    let explained = project.run(&["explain", "p.yaml", "two"]);
    assert_eq!(explained.code, 2);
    assert!(explained.stderr.contains("`two` has a matrix of 2 stages\n   help: name one: two@rate=0.01, two@rate=1"));
    let explained = project.run(&["explain", "p.yaml", "zz"]);
    assert!(explained.stderr.contains("help: it has two@"), "two letters are like nothing: {}", explained.stderr);
}

#[test]
fn a_file_that_somebody_changed_is_named_once() {
    let project = project();
    assert_eq!(project.run(&["get", "one", "x.txt"]).code, 0);
    std::fs::write(project.path("x.txt"), "mine").unwrap();
    let refused = project.run(&["get", "one", "x.txt"]);
    assert!(refused.stderr.contains("x.txt` was changed since pipe wrote it: move"), "{}", refused.stderr);
}

#[test]
fn counts_are_asked_for_in_words() {
    let project = Project::new();
    for count in ["0", "many"] {
        let refused = project.run(&["run", "p.yaml", "--jobs", count]);
        assert!(refused.code == 2 && refused.stderr.contains("write a whole number from 1"), "{}", refused.stderr);
    }
}
