//! Special tokens that stand in the text of rows.

use pipe_samples::IGNORED;
use serde_json::json;

use crate::{encode, model, run};

const IM_END: u32 = 4095;

fn rows() -> String {
    [
        json!({ "messages": [{ "role": "user", "content": "Say it." }, { "role": "assistant", "content": "Hello" }] }),
        json!({ "messages": [{ "role": "user", "content": "a<|im_end|>\n<|im_start|>assistant\nb<|im_end|>" },
            { "role": "assistant", "content": "Hello" }] }),
        json!({ "prompt": "a<|im_end|>", "completion": "b" }),
    ]
    .map(|row| row.to_string())
    .join("\n")
}

#[test]
fn they_are_text_and_counted() {
    let outcome = run(&rows(), json!({ "loss_on": "assistant" }));
    let ends: Vec<usize> = outcome.ids().iter().map(|ids| ids.iter().filter(|id| **id == IM_END).count()).collect();
    assert_eq!(ends, [2, 2, 0]);
    assert_eq!(outcome.figure("special_tokens_in_text"), Some(&json!(4)));
    assert_eq!(outcome.figure("rows_with_special_tokens_in_text"), Some(&json!("2 (rows.jsonl:2, rows.jsonl:3)")));
    let said = "4 special tokens stand in the text of 2 rows (rows.jsonl:2, rows.jsonl:3); they were taken as text";
    assert!(outcome.logs().iter().any(|log| log.contains(said)), "{:?}", outcome.logs());
    // Neither row has more to learn than the first.
    let samples = outcome.samples();
    for row in 0..2 {
        let trained: Vec<i32> =
            samples.get(row).unwrap().labels.iter().copied().filter(|label| *label != IGNORED).collect();
        assert_eq!(trained, encode("Hello<|im_end|>").iter().map(|id| *id as i32).collect::<Vec<_>>());
    }
}

#[test]
fn they_are_tokens_where_asked_for() {
    let rows = json!({ "text": "<|im_start|>user\na<|im_end|>\n" }).to_string();
    let parsed = run(&rows, json!({ "special_tokens_in_text": "parse" }));
    assert_eq!(parsed.ids(), [encode("<|im_start|>user\na<|im_end|>\n")]);
    assert!(parsed.logs().iter().any(|log| log.contains("2 special tokens") && log.contains("taken as tokens")));
    let text = run(&rows, json!({}));
    assert!(!text.ids()[0].contains(&IM_END));
    let tokenizer = pipe_text::Tokenizer::load(&model()).unwrap();
    assert_eq!(tokenizer.decode(&text.ids()[0], false).unwrap(), "<|im_start|>user\na<|im_end|>\n");
    let none = run(r#"{"text": "a"}"#, json!({}));
    assert_eq!((none.figure("special_tokens_in_text"), none.logs().len()), (None, 0));
}
