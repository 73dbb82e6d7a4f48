//! Texts to nodes: places, bounds, and what is refused.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use proptest::prelude::*;

use pipe_yaml::{MAX_BYTES, MAX_DEPTH, Node, Value, parse, parse_with_recovery};

/// The messages of a text's problems, with the text that each points at.
fn problems(text: &str) -> Vec<(String, &str)> {
    let problems = parse_with_recovery(text).problems.into_iter();
    problems.map(|problem| (problem.message, problem.span.map_or("", |span| &text[span.start..span.end]))).collect()
}

fn at<'text>(text: &'text str, node: &Node, path: &str) -> &'text str {
    let span = node.span_at(path);
    &text[span.start..span.end]
}

#[test]
fn spans_are_the_bytes_of_the_values() {
    let text = "a: 1\nb:\n  c: [x, \"y z\", '中']\n  d: {e: 文, f: }\n# g\n\nh: |\n  text\n  more\n\ni: *n\n"
        .replace("*n", "end");
    let root = parse(&text).unwrap();
    for (path, expected) in [
        ("a", "1"),
        ("b.c", "[x, \"y z\", '中']"),
        ("b.c.1", "\"y z\""),
        ("b.c.2", "'中'"),
        ("b.d", "{e: 文, f: }"),
        ("b.d.e", "文"),
        ("b.d.f", ""),
        ("b", "c: [x, \"y z\", '中']\n  d: {e: 文, f: }"),
        ("h", "text\n  more"),
        ("i", "end"),
        ("b.d.nowhere.deep", "{e: 文, f: }"),
    ] {
        assert_eq!(at(&text, &root, path), expected, "{path}");
    }
}

#[test]
fn a_byte_order_mark_and_windows_line_ends_move_nothing() {
    let text = "\u{feff}中: 1\r\nb:\r\n- c\r\n- d: 文\r\n";
    let root = parse(text).unwrap();
    assert_eq!((at(text, &root, "中"), at(text, &root, "b.0"), at(text, &root, "b.1.d")), ("1", "c", "文"));
}

#[test]
fn quotes_are_remembered_and_escapes_resolved() {
    let root = parse("[a, 'b', \"c\\n\", >-\n d\n e\n]".replace(">-\n d\n e\n", "~").as_str()).unwrap();
    let Value::Sequence(items) = root.value else { panic!("not a list") };
    let scalar = |text: &str, quoted| Value::Scalar { text: text.to_owned(), quoted };
    let values: Vec<_> = items.into_iter().map(|item| item.value).collect();
    assert_eq!(values, [scalar("a", false), scalar("b", true), scalar("c\n", true), scalar("~", false)]);
}

#[test]
fn problems_that_leave_the_structure_clear_are_reported_together() {
    let text = "a: 1\na: 2\n<<: 3\n? [q]\n: 5\nb: !x 5\nc: {d: 1, d: 2, d: 3}\n";
    assert_eq!(
        problems(text),
        [
            ("duplicate key `a`".to_owned(), "a"),
            ("merge keys (`<<`) are not supported".to_owned(), "<<"),
            ("a key is a list or a mapping".to_owned(), "[q]"),
            ("tags (`!name`) are not supported".to_owned(), "!x 5"),
            ("duplicate key `d`".to_owned(), "d"),
            ("duplicate key `d`".to_owned(), "d"),
        ]
    );
    let root = parse_with_recovery(text).root.unwrap();
    assert_eq!(at(text, &root, "a"), "1", "the first of two stays");
    assert!(parse(text).is_err());
}

#[test]
fn aliases_repeat_values_within_bounds() {
    let text = "a: &x {b: [1, 2]}\nc: *x\nd: &y text\ne: *y\n";
    let root = parse(text).unwrap();
    assert_eq!(root.get("c").unwrap().to_json(), serde_json::json!({ "b": [1, 2] }));
    assert_eq!(at(text, &root, "c"), "*x", "the alias stands where it is used");
    assert_eq!(at(text, &root, "c.b.1"), "2", "what is in it stands where it is written");
    assert_eq!(root.get("e").unwrap().as_text(), Some("text"));
    assert_eq!(problems("a: &x [*x]")[0].0, "an alias stands inside the value that it repeats");
    assert_eq!(problems("a: *x")[0].0, "the alias names no anchor");
}

#[test]
fn bombs_go_off_in_no_way() {
    let level = |n: usize| format!("l{n}: &l{n} [{}]\n", vec![format!("*l{}", n - 1); 10].join(", "));
    let wide: String = std::iter::once("l0: &l0 x\n".to_owned()).chain((1..9).map(level)).collect();
    assert!(problems(&wide)[0].0.contains("blow this document up to more than 1000000 values"));
    let deep: String = (1..100).map(|n| format!("l{n}: &l{n} [*l{}]\n", n - 1)).collect();
    assert!(problems(&format!("l0: &l0 x\n{deep}"))[0].0.contains("more than 64"));
    let repeated = |times: usize| format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a,".repeat(times));
    // The value itself is the first.
    assert!(parse(&repeated(15)).is_ok());
    let nested = format!("{}{}{}", "[&a ".repeat(20), "x".repeat(1 << 20), "]".repeat(20));
    for heavy in [repeated(16), nested] {
        assert_eq!(problems(&heavy)[0].0, "the aliases (`*name`) repeat more than 16777216 bytes of text");
    }
    let long = format!("[{}]", "1,".repeat(1_200_000));
    assert_eq!(problems(&long)[0].0, "the document has more than 1000000 values");
}

#[test]
fn depth_and_size_are_bounded() {
    for open in ["[", "- ", "? ", "{a: ", "&a ["] {
        assert!(!problems(&open.repeat(100_000)).is_empty(), "{open}");
    }
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(problems(&nested(MAX_DEPTH + 1))[0].0.contains("more than 64"));
    let large = "#".repeat(MAX_BYTES + 1);
    assert_eq!(problems(&large)[0].0, "the text has 8388609 bytes; the limit is 8388608");
}

#[test]
fn a_duplicate_is_found_in_a_mapping_of_any_size() {
    for keys in [1, 2, 15, 16, 17, 18, 500] {
        for copied in [0, keys / 2, keys - 1] {
            let lines: String = (0..keys).chain([copied]).map(|key| format!("k{key}: x\n")).collect();
            let found = parse_with_recovery(&lines).problems;
            let help = format!("it is first given on line {}: keep one of the two", copied + 1);
            assert_eq!(found.len(), 1, "{keys} {copied}");
            assert_eq!(found[0].message, format!("duplicate key `k{copied}`"));
            assert_eq!(found[0].help.as_deref(), Some(help.as_str()));
        }
    }
}

#[test]
fn tabs_are_named() {
    for text in ["a:\n\tb: 1\n", "a:\n  b: 1\n\tc: 2\n", "a:\t1\n"] {
        assert_eq!(problems(text), [("a tab stands where YAML wants spaces".to_owned(), "\t")], "{text:?}");
    }
    assert!(parse("a: |\n  x\n  \ty\nb: \"\\t\"\n").is_ok(), "tabs in texts are fine");
}

#[test]
fn the_second_document_is_refused_and_the_first_may_be_marked() {
    assert!(parse("---\na: 1\n...\n").is_ok());
    assert_eq!(problems("a: 1\n---\nb: 2\n"), [("a second document starts here".to_owned(), "---")]);
    for text in ["", "\n\n", "# nothing\n", "\u{feff}"] {
        assert_eq!(problems(text)[0].0, "the document is empty", "{text:?}");
    }
}

/// Every span lies in its parent's text and on the bounds of characters.
fn check_spans(text: &str, node: &Node) {
    assert!(text.get(node.span.start..node.span.end).is_some(), "{:?}", node.span);
    match &node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter().for_each(|item| check_spans(text, item)),
        Value::Mapping(entries) => entries.iter().for_each(|(key, value)| {
            assert!(text.get(key.span.start..key.span.end).is_some());
            check_spans(text, value);
        }),
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "([a-c:,&*!|>'\"{}\\[\\]#~?%@\\-\\$ \t\r\n中é\u{feff}]|\n  |: |- ){0,60}") {
        let parsed = parse_with_recovery(&text);
        prop_assert!(parsed.root.is_some() || !parsed.problems.is_empty());
        if let Some(root) = &parsed.root {
            check_spans(&text, root);
        }
        for span in parsed.problems.iter().filter_map(|problem| problem.span) {
            prop_assert!(text.get(span.start..span.end).is_some());
        }
    }
}
