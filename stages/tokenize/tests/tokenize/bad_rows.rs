//! Rows that cannot be used: named, or left out and counted.

use pipe_stage::FailureClass;
use serde_json::json;

use crate::{encode, model, run, run_inputs};

/// Good and bad rows in turn: a byte order mark, CRLF, blank lines, half a surrogate pair, bytes that are no UTF-8.
const MIXED: &[u8] = b"\xef\xbb\xbf{\"text\": \"one\"}\r\n\
    \r\n\
    {\"text\": \"two\"\n\
    {\"text\": \"\\ud800\"}\n\
    {\"text\": \"\xff\"}\n\
    \x20\t\n\
    {\"messages\": [{\"role\": \"robot\", \"content\": \"a\"}]}\n\
    {\"messages\": [{\"role\": \"user\", \"content\": \"\"}]}\n\
    [1]\n\
    {\"dialogue\": []}\n\
    {\"text\": \"three\"}\n\
    {\"text\"";

#[test]
fn skipped_rows_are_counted_by_reason() {
    let outcome = run_inputs(&model(), &[&[("a.jsonl", MIXED)]], json!({ "on_bad_row": "skip" }), false);
    assert_eq!(outcome.ids(), [encode("one"), encode("three")]);
    assert_eq!(outcome.figure("rows"), Some(&json!(10)));
    assert_eq!(outcome.figure("rows_bad"), Some(&json!(8)));
    let reason = |name: &str| outcome.figure(&format!("rows_bad_{name}")).and_then(|value| value.as_str());
    assert_eq!(reason("broken_json"), Some("2 (a.jsonl:3, a.jsonl:12)"));
    assert_eq!(reason("lone_surrogate"), Some("1 (a.jsonl:4)"));
    assert_eq!(reason("not_utf8"), Some("1 (a.jsonl:5)"));
    assert_eq!(reason("wrong_role"), Some("1 (a.jsonl:7)"));
    assert_eq!(reason("empty"), Some("1 (a.jsonl:8)"));
    assert_eq!(reason("not_an_object"), Some("1 (a.jsonl:9)"));
    assert_eq!(reason("unknown_shape"), Some("1 (a.jsonl:10)"));
    assert!(outcome.logs()[0].starts_with("left out 8 of 10 rows; not_utf8: 1 (a.jsonl:5); "), "{:?}", outcome.logs());
}

#[test]
fn only_the_first_places_are_named() {
    let rows = format!("{}{{\"text\": \"a b\"}}", "x\n".repeat(9));
    let outcome = run(&rows, json!({ "on_bad_row": "skip", "num_proc": 3, "batch_size": 2 }));
    let places = "9 (rows.jsonl:1, rows.jsonl:2, rows.jsonl:3, rows.jsonl:4, rows.jsonl:5, ...)";
    assert_eq!(outcome.figure("rows_bad_broken_json"), Some(&json!(places)));
}

#[test]
fn the_first_bad_row_is_named() {
    for threads in [1, 4] {
        let config = json!({ "num_proc": threads, "batch_size": 1 });
        let outcome = run_inputs(&model(), &[&[("a.jsonl", MIXED)]], config, false);
        let message = "a.jsonl:3: the row is not valid JSON: EOF while parsing an object at line 1 column 14";
        assert_eq!(outcome.error(), message);
        let failure = outcome.ran.result.unwrap_err();
        assert_eq!(failure.class(), FailureClass::Stage);
    }
}

#[test]
fn roles_and_shapes_are_explained() {
    let error = |rows: &str| run(rows, json!({})).error();
    assert_eq!(
        error(r#"{"messages": [{"role": "robot", "content": "a"}]}"#),
        "rows.jsonl:1: message 1 has the role `robot`, not one of `system`, `user`, `assistant`, `tool`"
    );
    assert_eq!(
        error(r#"{"query": 1, "reply": 2}"#),
        "rows.jsonl:1: the row has `query`, `reply`; it should have `conversations` of `from` and `value`, `messages`, \
         `input_ids`, `instruction` and `output`, `prompt` and `completion`, `question` and `answer`, \
         or `text` (or set `columns`)"
    );
    let refused = error(r#"{"messages": [{"role": "user", "content": 5}]}"#);
    assert!(refused.starts_with("rows.jsonl:1: the chat template refuses the conversation"), "{refused}");
}

#[test]
fn a_row_without_an_assistant_has_nothing_to_train() {
    let rows = r#"{"messages": [{"role": "user", "content": "a"}]}
{"text": "a"}
{"input_ids": [1, 2]}
{"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}"#;
    let outcome = run(rows, json!({ "loss_on": "assistant", "on_bad_row": "skip" }));
    assert_eq!(outcome.samples().len(), 1);
    let places = "3 (rows.jsonl:1, rows.jsonl:2, rows.jsonl:3)";
    assert_eq!(outcome.figure("rows_bad_no_assistant"), Some(&json!(places)));
}

#[test]
fn an_over_long_line_does_not_stop_the_rest() {
    let mut rows = b"{\"text\": \"one\"}\n{\"text\": \"".to_vec();
    rows.resize(rows.len() + (32 << 20), b'a');
    rows.extend(b"\"}\n{\"text\": \"two\"}");
    let outcome = run_inputs(&model(), &[&[("a.jsonl", &rows)]], json!({ "on_bad_row": "skip" }), false);
    assert_eq!(outcome.ids(), [encode("one"), encode("two")]);
    assert_eq!(outcome.figure("rows_bad_row_too_long"), Some(&json!("1 (a.jsonl:2)")));
}

#[test]
fn nothing_but_bad_rows_is_an_error() {
    let outcome = run("x\ny", json!({ "on_bad_row": "skip" }));
    assert_eq!(outcome.error(), "none of 2 rows gives a sample; broken_json: 2 (rows.jsonl:1, rows.jsonl:2)");
}
