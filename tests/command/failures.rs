//! What is said when a command does not do what was declared.

use super::Project;

/// The message of a pipeline with one stage that has these fields of `with:`, and the exit code.
fn failure(with: &str) -> (i32, String) {
    let project = Project::new(&format!("stages:\n  a: {{ kind: command, with: {{ {with} }} }}\n"));
    let ran = project.pipe(&["run", "p.yaml"]);
    assert!(project.pipe(&["get", "a", "copy"]).code != 0, "a failed stage has no artifact");
    (ran.code, ran.errors)
}

#[test]
fn every_failure_says_what_and_what_to_do() {
    for (with, code, said) in [
        ("run: exit 3, outputs: a", 1, &["`exit 3` ended with exit status 3"][..]),
        ("run: 'false; echo on > a', outputs: a", 1, &["`false; echo on > a` ended with exit status 1"]),
        ("run: 'false | true; touch a', shell: bash, outputs: a", 1, &["ended with exit status 1"]),
        ("run: 'kill -9 $$', outputs: a", 1, &["`kill -9 $$` was killed by signal 9 (SIGKILL)", "out of memory"]),
        (
            "run: 'sh -c \"kill -11 \\$\\$\"', outputs: a",
            1,
            &["139 says that a program was killed by signal 11 (SIGSEGV)"],
        ),
        (
            "run: no-such-thing --flag, outputs: a",
            1,
            &["ended with exit status 127", "a program was not found", "no-such-thing"],
        ),
        ("run: [no-such-thing], outputs: a", 3, &["there is no program `no-such-thing` in PATH", "PATH is /"]),
        (
            "run: [./tool], outputs: a",
            1,
            &["there is no program `./tool` in the folder that the command runs in", "`scripts`"],
        ),
        ("run: 'echo hm > b', outputs: a", 1, &["the command did not write its output `a`", "it left `b`"]),
        (
            "run: 'touch a b c', outputs: a",
            1,
            &["the command left `b` and `c`, which no output declares", "undeclared: ignore"],
        ),
        ("run: mkdir a, outputs: a/", 1, &["the output `a/` holds no files"]),
        ("run: touch a, outputs: a/", 1, &["the output `a/` is a file, not a folder", "without the `/`: `a`"]),
        ("run: ln -s /etc/passwd a, outputs: a", 1, &["the output `a` is a link, not a file"]),
        ("run: 'mkdir a; ln -s /etc/passwd a/b', outputs: a/", 1, &["b"]),
        (
            "run: [python3, -c, 'import missing_module'], outputs: a",
            1,
            &[
                "`python3 -c import missing_module` ended with exit status 1",
                "ModuleNotFoundError: No module named 'missing_module'",
            ],
        ),
    ] {
        let (found, errors) = failure(with);
        assert_eq!(found, code, "{with}: {errors}");
        for said in said {
            assert!(errors.contains(said), "{with}: no `{said}` in\n{errors}");
        }
    }
}

#[test]
fn a_file_that_is_no_program_is_named_with_what_it_lacks() {
    let run = |text: &str, mode: &str| {
        let project = Project::new(
            "stages: { a: { kind: command, inputs: { t: \"file://t\" }, with: { run: [./t], outputs: a } } }",
        );
        project.write("t", text);
        assert!(std::process::Command::new("chmod").arg(mode).arg(project.path("t")).status().unwrap().success());
        project.pipe(&["run", "p.yaml"]).errors
    };
    let errors = run("#!/bin/sh\n", "644");
    assert!(errors.contains("cannot start `./t`") && errors.contains("chmod +x"), "{errors}");
    let errors = run("#!/no/such/interpreter\n", "755");
    assert!(errors.contains("cannot start `./t`") && errors.contains("interpreter"), "{errors}");
    let errors = run("just text\n", "755");
    assert!(errors.contains("cannot start `./t`") && errors.contains("#!/bin/sh"), "{errors}");
}

#[test]
fn undeclared_files_may_be_left_where_that_is_declared() {
    let project =
        Project::new("stages: { a: { kind: command, with: { run: touch a b, outputs: a, undeclared: ignore } } }");
    project.run();
    project.write("p.yaml", "stages: { a: { kind: command, with: { run: touch a b, outputs: a } } }");
    assert!(project.to_run().is_empty(), "it changes no byte of an output");
}

#[test]
fn a_rerun_that_fails_leaves_what_was_made_before() {
    let text = |word: &str| format!("stages: {{ a: {{ kind: command, with: {{ run: {word} > a, outputs: a }} }} }}");
    let project = Project::new(&text("echo good"));
    project.run();
    project.write("p.yaml", &text("exit 1; echo"));
    assert_eq!(project.pipe(&["run", "p.yaml"]).code, 1);
    project.write("p.yaml", &text("echo good"));
    assert!(project.to_run().is_empty());
    project.run();
    assert_eq!(project.text("a", "a"), "good\n");
}
