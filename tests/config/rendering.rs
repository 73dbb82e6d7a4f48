//! Problems as people and as machines see them.

use pipe::config::render;
use serde_json::json;

use super::{parse, parse_with};

const TEXT: &str = "stages:
  数，据: { kind: dowload, with: { source: file://data } }
  kept:
    kind: filter
    inputs: { samples: corpus }
    with: { min_length: ten }
";

#[test]
fn the_line_the_caret_and_the_help_are_shown() {
    insta::assert_snapshot!(render(&parse(TEXT).err().unwrap(), false, 100));
}

#[test]
fn overrides_are_shown_as_such() {
    let text = "stages: { corpus: { kind: download, with: { source: file://data } } }";
    let error = parse_with(text, &[("stages.corpus.with.sha256", "[a]")]).err().unwrap();
    insta::assert_snapshot!(render(&error, false, 100));
}

#[test]
fn colour_is_only_for_those_who_take_it() {
    let error = parse(TEXT).err().unwrap();
    assert!(render(&error, true, 100).contains('\u{1b}'));
    assert!(!render(&error, false, 100).contains('\u{1b}'));
}

#[test]
fn a_file_cannot_steer_the_terminal() {
    let text = "stages:\n  \"\\e[2J\\nx\": { kind: \"\\u009b1A\", # \u{1b}]0;title\u{7}\u{85}\n    with: {} }\n";
    let shown = render(&parse(text).err().unwrap(), false, 100);
    assert!(shown.contains(r"`\u{1b}[2J\nx` is no name for a stage"), "{shown}");
    assert!(shown.contains(r"unknown kind `\u{9b}1A`"), "{shown}");
    assert!(shown.contains("# ?]0;title?·"), "{shown}");
    assert!(!shown.contains(|c: char| c.is_control() && c != '\n'), "{shown:?}");
}

#[test]
fn of_a_very_long_line_the_part_around_the_place_is_shown() {
    for (filler, length) in [("x", 70), ("x", 70_000), ("数据", 300_000)] {
        let filler = filler.repeat(length);
        let text =
            format!("stages: {{ a: {{ kind: command, with: {{ run: \"{filler}\", outputs: o, wrong: 1 }} }} }}\n");
        let shown = render(&parse(&text).err().unwrap(), false, 100);
        assert!(shown.contains("unknown field `wrong`"), "{shown}");
        let lines: Vec<&str> = shown.lines().collect();
        let (line, marks) = (lines[2], lines[3]);
        assert!(line.contains("wrong: 1 } } }") && line.chars().count() < 300, "{line}");
        assert_eq!(line.contains("... "), length > 70, "{line}");
        // The mark is as wide as the word, and under it: a Chinese character takes two columns.
        let before: usize = line.split("wrong").next().unwrap().chars().map(|c| if c.is_ascii() { 1 } else { 2 }).sum();
        assert!(marks.contains("─────"), "{marks}");
        assert!(before.abs_diff(marks.chars().take_while(|c| *c != '─').count()) <= 2, "{shown}");
    }
}

#[test]
fn machines_get_objects() {
    let error = parse("stages:\n  kept: { kind: fitler }\n").err().unwrap();
    let problem = &error.to_json()[0];
    assert_eq!(
        (&problem["file"], &problem["line"], &problem["column"]),
        (&json!("pipeline.yaml"), &json!(2), &json!(17))
    );
    assert_eq!(problem["message"], "unknown kind `fitler`");
    assert!(problem["help"].as_str().unwrap().starts_with("did you mean `filter`?"));
}
