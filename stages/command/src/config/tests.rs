//! The fields as they are written, and what is wrong with wrong ones.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use pipe_stage::{Declaration, Form, Kind};
use serde_json::json;

use super::*;
use crate::Command;

/// Problems of the fields `text` of a stage with these inputs, as `COLUMN: message | help`.
fn problems(text: &str, inputs: &[&str]) -> Vec<String> {
    let node = pipe_yaml::parse(text).unwrap();
    let line = |start: usize, message: &str, help: Option<String>| {
        let help = help.map(|help| format!(" | {help}")).unwrap_or_default();
        format!("{}: {message}{help}", start + 1)
    };
    match Declaration::of::<Command>().parse(&node) {
        Err(problems) => {
            let mut problems = problems;
            problems.sort_by_key(|problem| problem.span.map(|span| span.start));
            problems.into_iter().map(|p| line(p.span.unwrap().start, &p.message, p.help)).collect()
        }
        Ok(config) => {
            let mut problems = Problems::default();
            config.validate(&inputs.iter().map(|input| (*input).to_owned()).collect(), &mut problems);
            let found = problems.into_inner().into_iter();
            found.map(|(path, message, help)| line(node.span_at(&path).start, &message, help)).collect()
        }
    }
}

fn config(text: &str) -> Config {
    let found = problems(text, &[]);
    assert!(found.is_empty(), "{text}: {found:?}");
    pipe_yaml::deserialize(&pipe_yaml::parse(text).unwrap()).unwrap()
}

fn outputs(text: &str) -> Vec<(String, Form)> {
    let outputs = Command::outputs(&config(&format!("{{ run: a, outputs: {text} }}")));
    outputs.into_iter().map(|output| (output.name, output.form)).collect()
}

#[test]
fn the_resolved_configuration_is_read_as_what_it_was() {
    let config = config(
        "{ run: 'a > b', shell: bash, outputs: [b.txt, c/], env: [A, { B: 1, C: ~ }], scripts: [./lib/a.py], \
         link_inputs: true, undeclared: ignore }",
    );
    let value = serde_json::to_value(&config).unwrap();
    assert_eq!(
        value,
        json!({
            "run": "a > b", "shell": "bash", "outputs": { "b": "b.txt", "c": "c/" },
            "env": { "A": null, "B": "1", "C": null }, "scripts": ["lib/a.py"], "link_inputs": true,
            "undeclared": "ignore",
        })
    );
    assert_eq!(serde_json::from_value::<Config>(value).unwrap(), config);
    assert_eq!(Command::environment(&config), ["A", "C"]);
    assert_eq!(config.env.set().collect::<Vec<_>>(), [("B", "1")]);
    assert_eq!(Command::user_files(&config)[0].field, "scripts.0");
}

#[test]
fn a_command_is_a_text_or_a_list() {
    let run = |text: &str| config(&format!("{{ run: {text}, outputs: a }}")).run;
    assert_eq!(run("echo 1"), Run::Script("echo 1".to_owned()));
    assert_eq!(run("true"), Run::Script("true".to_owned()));
    assert_eq!(run("[seq, 1, 010]"), Run::Program(["seq", "1", "010"].map(str::to_owned).into()));
    assert_eq!(run("\"a\\n  b\"").to_string(), "a ...");
    assert_eq!(run(&"x".repeat(100)).to_string(), "x".repeat(80) + " ...");
}

#[test]
fn outputs_have_the_names_that_a_pipeline_will_use() {
    let (file, folder) = (Form::File, Form::Folder);
    let named = |outputs: &[(&str, Form)]| outputs.iter().map(|(n, f)| ((*n).to_owned(), *f)).collect::<Vec<_>>();
    assert_eq!(outputs("scores.txt"), named(&[("out", file)]));
    assert_eq!(outputs("[中文/]"), named(&[("out", folder)]));
    assert_eq!(outputs("[a/scores.tar.gz, figures/]"), named(&[("scores", file), ("figures", folder)]));
    assert_eq!(outputs("{ best: 最好.txt }"), named(&[("best", file)]));
}

#[test]
fn every_wrong_field_is_named_with_what_would_be_right() {
    for (text, inputs, expected) in [
        ("{ run: ' ', outputs: a }", &[][..], "8: the script is empty"),
        ("{ run: [], outputs: a }", &[], "8: the list names no program"),
        ("{ run: ~, outputs: a }", &[], "8: the script is empty"),
        ("{ run: a, outputs: '' }", &[], "20: the path is empty"),
        ("{ run: a, outputs: ~ }", &[], "20: a command must make at least one output"),
        (
            "{ run: 5, outputs: a }",
            &[],
            "8: expected a command: a text for the shell, or a list of a program and its arguments, found `5`",
        ),
        (
            "{ run: a, shell: python3, outputs: a }",
            &[],
            "18: `python3` is no shell that is known here | one of sh, ash, bash, dash, ksh, mksh, zsh; run others as a \
             list: `run: [python3, -c, ...]`",
        ),
        (
            "{ run: [a], shell: sh, outputs: a }",
            &[],
            "20: a list runs without a shell | make `run` a text, or remove `shell`",
        ),
        ("{ run: a }", &[], "1: missing field `outputs`"),
        ("{ run: a, outputs: [] }", &[], "20: a command must make at least one output"),
        (
            "{ run: a, outputs: ['a b.txt', b] }",
            &[],
            "20: `a b.txt` gives no name for an output: write a mapping of names to paths",
        ),
        (
            "{ run: a, outputs: [a.txt, a.json] }",
            &[],
            "20: `a.txt` and `a.json` would both be called `a`: write a mapping of names to paths",
        ),
        (
            "{ run: a, outputs: { a.b: c } }",
            &[],
            "20: `a.b` is no name for an output: use letters and digits of any script, `_` and `-`, at most 64, not first a `-`",
        ),
        (
            "{ run: a, outputs: [a, ../b] }",
            &[],
            "24: `../b` is no path here: it must be relative and must not leave its folder",
        ),
        ("{ run: a, outputs: /a }", &[], "20: `/a` is no path here: it must be relative and must not leave its folder"),
        ("{ run: a, outputs: a, env: [A=1] }", &[], "29: write `{ A: \"1\" }` to set the variable `A`"),
        (
            "{ run: a, outputs: a, env: [A, 2B] }",
            &[],
            "32: `2B` is no name for a variable: use letters, digits and `_`",
        ),
        ("{ run: a, outputs: a, env: { PIPE_METRICS: x } }", &[], "28: `PIPE_METRICS` is set by pipe"),
        ("{ run: a, outputs: a, env: [A, { A: 1 }] }", &[], "28: the variable `A` is named twice"),
        (
            "{ run: a, outputs: data/a }",
            &["data"],
            "20: the output `data/a` lies in the input `data` | give each a place of its own",
        ),
        (
            "{ run: a, outputs: a, scripts: [lib/] }",
            &["lib/x"],
            "33: the script `lib` holds the input `lib/x` | give each a place of its own",
        ),
        (
            "{ run: a, outputs: { one: a, two: a/ } }",
            &[],
            "35: the output `a` stands where the output `a` does | give each a place of its own",
        ),
        (
            "{ run: a, outputs: a, undeclared: warn }",
            &[],
            "35: unknown value `warn` | expected one of `error`, `ignore`",
        ),
    ] {
        assert_eq!(problems(text, inputs), [expected], "{text}");
    }
}

#[test]
fn all_wrong_fields_are_reported_at_once() {
    let found = problems("{ run: 5, outputs: [{}, ../a], env: [A=1, 2], scripts: 1, undeclared: no, cwd: / }", &[]);
    let columns: Vec<_> = found.iter().map(|line| line.split(':').next().unwrap()).collect();
    assert_eq!(columns, ["8", "21", "25", "38", "43", "56", "71", "75"], "{found:#?}");
}
