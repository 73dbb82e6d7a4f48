//! Rows of more than `max_length` tokens.

use serde_json::json;

use crate::{encode, run};

fn rows() -> String {
    let long = json!({ "messages": [{ "role": "user", "content": "words ".repeat(60) }, { "role": "assistant", "content": "Hello" }] });
    let short = json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b" }] });
    format!("{long}\n{short}\n")
}

#[test]
fn either_side_may_go() {
    let whole = run(&rows(), json!({})).ids();
    let over = whole[0].len() - 20;
    let right = run(&rows(), json!({ "max_length": 20 }));
    assert_eq!(right.ids(), [whole[0][..20].to_vec(), whole[1].clone()]);
    let left = run(&rows(), json!({ "max_length": 20, "truncation_side": "left", "loss_on": "assistant" }));
    assert_eq!(left.ids(), [whole[0][over..].to_vec(), whole[1].clone()]);
    assert_eq!(left.logs(), [""; 0]);
    for outcome in [&right, &left] {
        assert_eq!(outcome.figure("rows_truncated"), Some(&json!(1)));
        assert_eq!(outcome.figure("tokens_truncated"), Some(&json!(over)));
        assert_eq!(outcome.figure("rows_dropped_too_long"), Some(&json!(0)));
    }
    // What the loss counts stays beside its ids.
    let samples = left.samples();
    let trained: Vec<u32> =
        samples.get(0).unwrap().labels.iter().filter_map(|label| u32::try_from(*label).ok()).collect();
    assert_eq!(trained, encode("Hello<|im_end|>"));
}

#[test]
fn they_may_be_left_out() {
    let rows = format!("{}{{\"text\": 7}}\n", rows());
    let outcome = run(&rows, json!({ "max_length": 20, "on_too_long": "drop", "on_bad_row": "skip" }));
    assert_eq!(outcome.ids(), [run(&rows, json!({ "on_bad_row": "skip" })).ids()[1].clone()]);
    let figures = ["rows", "samples", "rows_dropped_too_long", "rows_truncated", "tokens_truncated", "rows_bad"]
        .map(|name| outcome.figure(name).unwrap().as_u64().unwrap());
    assert_eq!(figures, [3, 1, 1, 0, 0, 1]);
    assert!(outcome.logs().contains(&"left out rows by `on_too_long`; 1 of 3 have more than 20 tokens"));
    // A row that just fits stays.
    let length = run(&rows, json!({ "on_bad_row": "skip" })).ids()[0].len();
    let kept = |max_length: usize| {
        run(&rows, json!({ "max_length": max_length, "on_too_long": "drop", "on_bad_row": "skip" })).ids().len()
    };
    assert_eq!([kept(length), kept(length - 1)], [2, 1]);
    let nothing = run(&rows, json!({ "max_length": 2, "on_too_long": "drop", "on_bad_row": "skip" })).error();
    let expected = "none of 3 rows gives a sample; 2 of 3 have more than 2 tokens; wrong_type: 1 (rows.jsonl:3)";
    assert_eq!(nothing, expected);
}

#[test]
fn what_is_left_without_anything_to_train_is_counted() {
    let outcome = run(&rows(), json!({ "max_length": 20, "loss_on": "assistant" }));
    assert_eq!(outcome.ids().len(), 2);
    assert_eq!(outcome.figure("rows_truncated_to_nothing_trained"), Some(&json!(1)));
    assert!(outcome.logs().iter().any(|log| log.contains("1 samples have nothing left that the loss counts")));
    let all = run(&rows(), json!({ "max_length": 20 }));
    assert_eq!((all.figure("rows_truncated_to_nothing_trained"), all.logs().len()), (None, 0));
}
