//! Files and rows in their order, whatever the threads do.

use std::fs;

use pipe_stage::{FailureClass, Level};
use serde_json::json;

use crate::{encode, model, run, run_inputs};

/// Rows of very different sizes, so that threads finish out of order.
fn rows() -> String {
    let row = |index: usize| match index % 4 {
        0 => json!({ "text": format!("row {index} {}", "long words ".repeat(index * 7 % 900)) }),
        1 => json!({ "prompt": format!("{index}+1="), "completion": (index + 1).to_string() }),
        2 => json!({ "instruction": format!("Say {index}"), "output": format!("{index}") }),
        _ => json!({ "input_ids": [index, index + 1] }),
    };
    (0..700).map(|index| format!("{}\n", row(index))).collect()
}

#[test]
fn threads_and_batches_change_no_byte() {
    let rows = rows();
    let bytes = |threads: usize, batch: usize| {
        let outcome = run(&rows, json!({ "num_proc": threads, "batch_size": batch }));
        assert_eq!(outcome.samples().len(), 700);
        fs::read(outcome.output().join(pipe_samples::FILE_NAME)).unwrap()
    };
    let expected = bytes(1, 1000);
    for (threads, batch) in [(1, 1), (2, 7), (5, 1), (8, 64)] {
        assert_eq!(bytes(threads, batch), expected, "{threads} threads, batches of {batch}");
    }
}

#[test]
fn files_are_sorted_in_each_input() {
    let line = |text: &str| format!("{}\n", json!({ "text": text })).into_bytes();
    let (one, two, three, four) = (line("one"), line("two"), line("three"), line("four"));
    let outcome = run_inputs(
        &model(),
        &[
            &[("b.jsonl", &two), ("a.jsonl", &one), ("README.md", b"no data")],
            &[("sub/x.jsonl", &four), ("a.jsonl", &three)],
        ],
        json!({}),
        false,
    );
    assert_eq!(outcome.ids(), ["one", "two", "three", "four"].map(encode));
    let nothing = run_inputs(&model(), &[&[("README.md", b"{}"), ("LICENSE", b"")]], json!({}), false);
    let error = nothing.error();
    assert!(error.starts_with("there is no data: no .arrow, "), "{error}");
    assert!(error.ends_with(" file; found LICENSE, README.md"), "{error}");
}

#[test]
fn a_stage_stops_when_asked_to() {
    let rows = rows();
    let outcome = run_inputs(&model(), &[&[("rows.jsonl", rows.as_bytes())]], json!({ "batch_size": 1 }), true);
    assert_eq!(outcome.ran.result.unwrap_err().class(), FailureClass::Cancelled);
}

#[test]
fn what_is_read_and_what_is_not_is_said() {
    let said = |files: &[(&str, &[u8])]| {
        let outcome = run_inputs(&model(), &[files], json!({}), false);
        outcome.said(Level::Info)[0].to_owned()
    };
    let rows: (&str, &[u8]) = ("a.jsonl", b"{\"text\": \"a\"}");
    assert_eq!(said(&[rows]), "reads file: 1 as jsonl");
    assert_eq!(said(&[rows, ("README.md", b"")]), "reads file: 1 as jsonl; leaves README.md aside");
    let more = said(&[rows, ("b.csv", b"text\nb\n"), ("LICENSE", b""), ("README.md", b"")]);
    assert_eq!(more, "reads files: 1 as csv, 1 as jsonl; leaves LICENSE and 1 more aside");
}
