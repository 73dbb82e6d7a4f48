//! Shapes that are fixed, columns with other names, and what is wrong with rows of each shape.

use serde_json::{Value, json};
use stage_tokenize::{Config, Tokenize};

use crate::{encode, run};

fn error(row: Value, config: Value) -> String {
    let error = run(&row.to_string(), config).error();
    error.strip_prefix("rows.jsonl:1: ").unwrap_or(&error).to_owned()
}

#[test]
fn columns_stand_for_fields() {
    let expected = run(r#"{"instruction": "Add.", "input": "1, 2", "output": "3"}"#, json!({})).ids();
    let same = |row: Value, columns: Value| {
        assert_eq!(run(&row.to_string(), json!({ "columns": columns })).ids(), expected, "{row}");
    };
    let dolly = json!({ "instruction": "Add.", "context": "1, 2", "response": "3", "text": "x" });
    same(dolly, json!({ "input": "context", "output": "response" }));
    // Names that are swapped, nested, hold dots, or stand for two fields.
    same(
        json!({ "output": "Add.\n1, 2", "instruction": "3" }),
        json!({ "output": "instruction", "instruction": "output" }),
    );
    let nested = json!({ "q": { "text": "Add.\n1, 2" }, "answers": { "text": ["3"] } });
    same(nested, json!({ "question": "q.text", "answer": "answers.text.0" }));
    same(json!({ "a.b": "Add.\n1, 2", "a": { "b": "no" }, "c": "3" }), json!({ "question": "a.b", "answer": "c" }));
    let chat = json!([{ "from": "human", "value": "Add.\n1, 2" }, { "from": "gpt", "value": "3" }]);
    same(json!({ "dialogue": chat }), json!({ "conversations": "dialogue" }));
    same(json!({ "dialogue": chat.to_string() }), json!({ "conversations": "dialogue" }));

    // The issue's own example, and a field of the data that `columns` hides.
    let row = r#"{"question": "The sky is", "answer": " blue.", "prompt": "no"}"#;
    let outcome = run(row, json!({ "columns": { "prompt": "question", "completion": "answer" } }));
    assert_eq!(outcome.ids(), [encode("The sky is blue.")]);
    // A field that is mapped says which shape is meant.
    let row = r#"{"messages": [], "body": "a text"}"#;
    assert_eq!(run(row, json!({ "columns": { "text": "body" } })).ids(), [encode("a text")]);
}

#[test]
fn a_shape_is_fixed() {
    let row = json!({ "messages": [], "text": "a text" });
    assert_eq!(run(&row.to_string(), json!({ "shape": "text" })).ids(), [encode("a text")]);
    assert_eq!(error(row, json!({ "shape": "alpaca" })), "the row has no `instruction`; it has `messages`, `text`");
    let prompt = json!({ "prompt": "a" });
    assert_eq!(error(prompt, json!({ "shape": "prompt_completion" })), "the row has no `completion`; it has `prompt`");
}

#[test]
fn a_column_that_is_not_there_is_named() {
    let row = json!({ "question": "a", "reply": "b" });
    let columns = json!({ "columns": { "prompt": "question", "completion": "answer" } });
    assert_eq!(
        error(row.clone(), columns.clone()),
        "the row has `question`, `reply`; it should have `prompt` and `completion` (or set `columns`); it has no column \
         `answer`, which `columns` names for `completion`"
    );
    let mut fixed = columns.clone();
    fixed["shape"] = "prompt_completion".into();
    assert_eq!(
        error(row, fixed),
        "the row has no `completion`; it has `question`, `reply`; it has no column `answer`, which `columns` names for \
         `completion`"
    );
    let number = error(json!({ "question": "a", "answer": 3 }), columns);
    assert_eq!(number, "`completion` is a number, not text (`completion` is the column `answer`)");
    // What a row may do without is still a mistake if every row does.
    let rows =
        "{\"instruction\": \"a\", \"output\": \"b\"}\n{\"instruction\": \"a\", \"output\": \"b\", \"context\": \"c\"}";
    assert_eq!(run(rows, json!({ "columns": { "input": "context" } })).ids().len(), 2);
    let never = run(rows, json!({ "columns": { "input": "contxt" } })).error();
    assert_eq!(never, "none of 2 rows has anything in the column `contxt`, which `columns` names for `input`");
}

#[test]
fn columns_are_checked_before_the_run() {
    let problems = |config: Value| -> Vec<String> {
        let found = pipe_trial::problems::<Tokenize>(config, &[]).into_iter();
        found.map(|(path, message, help)| format!("{path} {message}: {}", help.unwrap_or_default())).collect()
    };
    assert_eq!(problems(json!({ "columns": { "prompt": "a", "completion": "b" } })), [""; 0]);
    let unknown = problems(json!({ "columns": { "promt": "a" } }));
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0].starts_with("columns.promt is no field of any shape: did you mean `prompt`?"), "{unknown:?}");
    let other = problems(json!({ "shape": "text", "columns": { "prompt": "a" } }));
    assert_eq!(other, ["columns.prompt is no field of the shape `text`: expected `text`"]);
    let two = problems(json!({ "columns": { "prompt": "a", "answer": "b" } }));
    assert_eq!(two, ["columns has fields that no single shape has: name the fields of one shape"]);
    assert_eq!(problems(json!({ "columns": { "text": "" } })), ["columns.text names no column: "]);
    assert!(serde_json::from_value::<Config>(json!({ "shape": "chatml" })).is_err());
}

#[test]
fn bad_rows_of_each_shape_have_a_reason() {
    let user = json!({ "from": "human", "value": "a" });
    let turn = |from: &str, value: Value| json!({ "conversations": [user, { "from": from, "value": value }] });
    let alpaca = |field: &str, value: Value| {
        let mut row = json!({ "instruction": "a", "output": "b" });
        row[field] = value;
        row
    };
    let message = json!([{ "role": "user", "content": "a" }]);
    for (row, reason, detail) in [
        (turn("robot", json!("b")), "wrong_role", "message 2 is from `robot`, not from `human`"),
        (turn("gpt", json!("")), "empty", "message 2 (`assistant`) has no content"),
        (turn("gpt", json!(null)), "empty", "message 2 (`assistant`) has no `value`"),
        (turn("gpt", json!(3)), "wrong_type", "the `value` of message 2 is a number, not text"),
        (json!({ "conversations": [user, { "value": "b" }] }), "wrong_role", "message 2 has no `from`"),
        (
            json!({ "conversations": [user, { "from": 1, "value": "b" }] }),
            "wrong_role",
            "the `from` of message 2 is a number",
        ),
        (json!({ "conversations": [user, "b"] }), "wrong_type", "message 2 is text, not an object"),
        (json!({ "conversations": [] }), "empty", "`conversations` is empty"),
        (json!({ "conversations": "hello" }), "wrong_type", "`conversations` is text, not a list"),
        (json!({ "conversations": {} }), "wrong_type", "`conversations` is an object, not a list"),
        (json!({ "conversations": "[{\"from\": \"human\"" }), "broken_json", "`conversations` is not valid JSON"),
        (json!({ "messages": "[{'role': 'user', 'content': 'a'}]" }), "broken_json", "as Python prints it"),
        (
            json!({ "messages": "[{\"role\": \"user\", \"role\": \"user\"}]" }),
            "duplicate_key",
            "of `messages` has a key twice",
        ),
        (
            json!({ "messages": "[{\"role\": \"user\", \"content\": \"\\ud800\"}]" }),
            "lone_surrogate",
            "`messages` has half",
        ),
        (json!({ "messages": "{}" }), "wrong_type", "`messages` holds an object, not a list"),
        (json!({ "conversations": [user], "tools": "[{" }), "broken_json", "`tools` is not valid JSON"),
        (json!({ "conversations": [user], "tools": 3 }), "wrong_type", "`tools` is a number, not a list"),
        (json!({ "conversations": [user], "system": 3 }), "wrong_type", "`system` is a number, not text"),
        (alpaca("history", json!([["q", "a"], ["q"]])), "wrong_type", "turn 2 of `history` is a list of 1, not a pair"),
        (alpaca("history", json!([["q", 3]])), "wrong_type", "the answer of turn 1 of `history` is a number"),
        (alpaca("history", json!([["", "a"]])), "empty", "the question of turn 1 of `history` is empty"),
        (alpaca("input", json!(3)), "wrong_type", "`input` is a number, not text"),
        (alpaca("output", json!("\n")), "empty", "`output` is empty"),
        (json!({ "question": "a", "answer": " " }), "empty", "`answer` is empty"),
        (json!({ "question": ["a"], "answer": "b" }), "wrong_type", "`question` is a list, not text"),
        (json!({ "prompt": message, "completion": "b" }), "wrong_type", "one of `prompt` and `completion` is a list"),
        (json!({ "prompt": message, "completion": [{ "role": "x" }] }), "wrong_role", "message 2 has the role `x`"),
        (json!({ "prompt": message, "completion": [] }), "empty", "`completion` is empty"),
        (json!({ "prompt": "a", "completion": "" }), "empty", "`completion` is empty"),
        (json!({ "input_ids": "[1, -2]" }), "bad_ids", "item 2 of `input_ids` is -2"),
    ] {
        let said = error(row.clone(), json!({}));
        assert!(said.contains(detail), "{row}: {said}");
        let rows = format!("{{\"text\": \"a text\"}}\n{row}");
        let outcome = run(&rows, json!({ "on_bad_row": "skip" }));
        let figure = outcome.figure(&format!("rows_bad_{reason}"));
        assert_eq!(figure, Some(&json!("1 (rows.jsonl:2)")), "{row}: {said}");
        assert_eq!(outcome.figure("rows_text"), Some(&json!(1)));
    }
}
