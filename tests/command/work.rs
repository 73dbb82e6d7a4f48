//! Inputs, outputs and scripts: what a command finds and what others get of it.

use std::{fs, os::unix::fs::PermissionsExt};

use super::Project;

/// A text, counted in Python, drawn in a shell: a file, a folder and a file from both.
const THREE: &str = r#"
stages:
  text:
    kind: command
    with:
      run: printf 'eins\nzwei\n三\n' > text.txt
      outputs: text.txt
  count:
    kind: command
    inputs: { lines: text, count.py: "file://count.py" }
    with:
      run: [python3, count.py]
      outputs: { numbers: numbers/, total: 总数.txt }
  report:
    kind: command
    inputs: { data/numbers: count.numbers, data/total: count.total, all: [text, count.total] }
    with:
      run: |
        find data all -type f | sort > report.txt
        cat data/numbers/3.txt data/total all/0 >> report.txt
      shell: bash
      outputs: report.txt
"#;

const COUNT: &str = r#"
import os
os.mkdir("numbers")
lines = open("lines", encoding="utf-8").read().split()
for number, line in enumerate(lines, 1):
    open(f"numbers/{number}.txt", "w", encoding="utf-8").write(f"{line} {len(line)}\n")
open("总数.txt", "w").write(f"{len(lines)}\n")
"#;

#[test]
fn stages_in_several_languages_take_from_each_other_and_are_then_up_to_date() {
    let project = Project::new(THREE);
    project.write("count.py", COUNT);
    project.run();
    assert_eq!(
        project.text("report", "report.txt"),
        "all/0\nall/1\ndata/numbers/1.txt\ndata/numbers/2.txt\ndata/numbers/3.txt\ndata/total\n三 1\n3\neins\nzwei\n三\n"
    );
    assert_eq!(project.text("count.total", "总数.txt"), "3\n");
    assert!(project.to_run().is_empty());
    let again = project.run();
    assert!(again.errors.starts_with("up to date: 3 stages"), "{}", again.errors);

    // A comment changes the script, and not what it makes.
    project.write("count.py", &format!("# the same\n{COUNT}"));
    assert_eq!(project.to_run()[0], "count");
    let cut_off = project.run();
    assert!(cut_off.errors.contains("done: 1 stage run, 2 up to date"), "{}", cut_off.errors);
}

#[test]
fn a_file_and_a_folder_of_the_same_content_are_two_inputs() {
    let text = |output: &str| {
        format!(
            "stages:\n  a: {{ kind: command, with: {{ run: \"mkdir -p d; echo 1 > d/x; cp d/x x\", undeclared: ignore, \
             outputs: {output} }} }}\n  b: {{ kind: command, inputs: {{ a: a }}, with: {{ run: \"if [ -d a ]; then \
             cat a/x; else echo file; fi > b\", outputs: b }} }}\n"
        )
    };
    let project = Project::new(&text("x"));
    project.run();
    assert_eq!(project.text("b", "b"), "file\n");
    project.write("p.yaml", &text("d/"));
    let ran = project.run();
    assert_eq!(project.text("b", "b"), "1\n", "{}", ran.errors);
}

#[test]
fn scripts_stand_where_they_are_in_the_project_and_count_by_their_content() {
    let project = Project::new(
        r#"
stages:
  a:
    kind: command
    with:
      run: [python3, tools/main.py]
      scripts: [tools/main.py, tools/lib]
      outputs: a.txt
  b:
    kind: command
    inputs: { tool.sh: "file://tools/tool.sh" }
    with: { run: [./tool.sh], outputs: b.txt }
"#,
    );
    project.write("tools/main.py", "from lib import words\nopen('a.txt', 'w').write(words.GREETING)\n");
    project.write("tools/lib/words.py", "GREETING = 'hello'\n");
    project.write("tools/tool.sh", "#!/bin/sh\necho tool > b.txt\n");
    fs::set_permissions(project.path("tools/tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    project.run();
    assert_eq!((project.text("a", "a.txt"), project.text("b", "b.txt")), ("hello".to_owned(), "tool\n".to_owned()));
    let beside: Vec<_> =
        fs::read_dir(project.path("tools/lib")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(beside, ["words.py"], "nothing is written into the project");

    fs::File::open(project.path("tools/lib/words.py"))
        .unwrap()
        .set_modified(std::time::SystemTime::UNIX_EPOCH)
        .unwrap();
    assert!(project.to_run().is_empty(), "touched is not changed");
    project.write("tools/lib/words.py", "GREETING = 'good day'\n");
    assert_eq!(project.to_run(), ["a"]);
    project.run();
    assert_eq!(project.text("a", "a.txt"), "good day");
}

#[test]
fn no_command_reaches_the_cache_or_the_users_files_through_its_inputs() {
    // As a user, a read-only file refuses; the superuser writes to a copy.
    let project = Project::new(
        r#"
stages:
  a: { kind: command, with: { run: "echo good > a; mkdir d; echo good > d/x", outputs: [a, d/] } }
  worse:
    kind: command
    inputs: { a: a.a, d: a.d, mine: "file://mine.txt" }
    with:
      run: (echo bad >> a) || true; (echo bad >> d/x) || true; (echo bad >> mine) || true; echo done > worse
      outputs: worse
  linked:
    kind: command
    inputs: { a: a.a, d: a.d }
    with:
      run: |
        if echo bad >> d/x || echo bad >> a; then echo reached > linked; else find . -type l | sort > linked; fi
      link_inputs: true
      outputs: linked
  after: { kind: command, inputs: { worse: worse, linked: linked, a: a.a, d: a.d }, with: { run: cat a d/x > after, outputs: after } }
"#,
    );
    project.write("mine.txt", "mine\n");
    project.run();
    assert_eq!(project.text("linked", "linked"), "./a\n./d\n");
    assert_eq!(project.text("after", "after"), "good\ngood\n");
    assert_eq!(fs::read_to_string(project.path("mine.txt")).unwrap(), "mine\n");
    assert!(project.to_run().is_empty());
}

#[test]
fn a_failed_attempt_hands_its_resume_folder_to_the_next() {
    let project = Project::new(
        r#"
stages:
  a:
    kind: command
    with:
      run: |
        echo step >> $PIPE_RESUME/steps
        test $(wc -l < $PIPE_RESUME/steps) -ge 3
        cp $PIPE_RESUME/steps out
      outputs: out
"#,
    );
    assert_eq!(project.pipe(&["run", "p.yaml"]).code, 1);
    assert_eq!(project.pipe(&["run", "p.yaml"]).code, 1);
    project.run();
    assert_eq!(project.text("a", "out"), "step\nstep\nstep\n");
}

#[test]
fn figures_are_taken_from_the_file_of_metrics() {
    let project = Project::new(
        r#"
stages:
  a:
    kind: command
    with:
      run: |
        echo '{"step": 1, "loss": 2}' >> $PIPE_METRICS
        echo '{"accuracy": 0.75, "classes": 3}' >> $PIPE_METRICS
        echo '{"odd": null}' >> $PIPE_METRICS
        echo hello; echo there >&2; touch out
      outputs: out
"#,
    );
    let ran = project.run();
    assert!(ran.errors.contains("`odd` is left out"), "{}", ran.errors);
    let shown = project.command(&["runs", "show", "last", "--format", "json"]).output().unwrap();
    let shown: serde_json::Value = serde_json::from_slice(&shown.stdout).unwrap();
    assert_eq!(shown["stages"]["a"]["figures"]["accuracy"], 0.75, "{shown}");
    let log = project.log("a");
    assert!(log.contains("hello\nthere\n"), "{log}");
}
