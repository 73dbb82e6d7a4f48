//! System prompts and prompt templates that rows draw, and repeats.

use std::fs;

use pipe_text::Tokenizer;
use serde_json::{Value, json};

use crate::{Outcome, encode, model, run, run_inputs};

fn chat(question: impl Into<Value>) -> Value {
    json!({ "messages": [{ "role": "user", "content": question.into() }, { "role": "assistant", "content": "yes" }] })
}

fn lines(rows: impl IntoIterator<Item = Value>) -> String {
    rows.into_iter().map(|row| format!("{row}\n")).collect()
}

fn conversations(count: usize) -> String {
    lines((0..count).map(|row| chat(format!("question {row}"))))
}

fn texts(outcome: &Outcome) -> Vec<String> {
    let tokenizer = Tokenizer::load(&model()).unwrap();
    outcome.ids().iter().map(|ids| tokenizer.decode(ids, false).unwrap()).collect()
}

fn config() -> Value {
    json!({ "system_prompts": ["Be brief.", "Be kind.", "请用中文回答。"], "prompt_templates": ["{prompt}", "Q: {prompt}\nA:"],
        "repeat": 3 })
}

fn with(mut config: Value, more: Value) -> Value {
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

#[test]
fn threads_and_batches_change_no_draw() {
    let rows = conversations(300);
    let bytes = |threads: usize, batch: usize| {
        let outcome = run(&rows, with(config(), json!({ "num_proc": threads, "batch_size": batch })));
        assert_eq!(outcome.samples().len(), 900);
        fs::read(outcome.output().join(pipe_samples::FILE_NAME)).unwrap()
    };
    let expected = bytes(1, 256);
    for (threads, batch) in [(1, 1), (4, 1), (4, 256)] {
        assert_eq!(bytes(threads, batch), expected, "{threads} threads, batches of {batch}");
    }
}

#[test]
fn rows_added_or_skipped_move_no_other_draw() {
    let rows: Vec<String> = conversations(50).lines().map(str::to_owned).collect();
    let files = |a: &[String], b: &[String], config: Value| {
        let (a, b) = (a.join("\n"), b.join("\n"));
        let inputs: &[&[(&str, &[u8])]] = &[&[("a.jsonl", a.as_bytes()), ("b.jsonl", b.as_bytes())]];
        run_inputs(&model(), inputs, config, false).ids()
    };
    let once = with(config(), json!({ "repeat": 1, "on_bad_row": "skip" }));
    let all = files(&rows, &rows, once.clone());
    let fewer = files(&rows[..40], &rows[..30], once.clone());
    assert_eq!(fewer, [&all[..40], &all[50..80]].concat());
    let mut broken = rows.clone();
    broken[3] = "{".to_owned();
    assert_eq!(files(&broken, &rows, once.clone()), [&all[..3], &all[4..]].concat());
    // Repeats come behind what there is without them.
    assert_eq!(files(&rows, &rows, with(once.clone(), json!({ "repeat": 2 })))[..100], all);
    // Equal rows of two files draw on their own, and so does every seed.
    assert_ne!(all[..50], all[50..]);
    assert_ne!(files(&rows, &rows, with(once, json!({ "seed": 43 }))), all);
}

#[test]
fn every_prompt_and_template_is_drawn_about_as_often() {
    let outcome = run(&conversations(1200), with(config(), json!({ "repeat": 1 })));
    let counts = |name: &str| -> Vec<u64> { serde_json::from_value(outcome.figure(name).unwrap().clone()).unwrap() };
    let (prompts, templates) = (counts("system_prompts_drawn"), counts("prompt_templates_drawn"));
    assert_eq!((prompts.iter().sum::<u64>(), templates.iter().sum::<u64>()), (1200, 1200));
    // Four standard deviations.
    assert!(prompts.iter().all(|count| (335..=465).contains(count)), "{prompts:?}");
    assert!(templates.iter().all(|count| (531..=669).contains(count)), "{templates:?}");
    let texts = texts(&outcome);
    for (index, text) in ["Be brief.", "Be kind.", "请用中文回答。"].iter().enumerate() {
        let head = format!("<|im_start|>system\n{text}<|im_end|>\n<|im_start|>user\n");
        assert_eq!(texts.iter().filter(|row| row.starts_with(&head)).count() as u64, prompts[index]);
    }
    // One says nothing about the other: a sixth of the rows for each pair.
    let both = texts.iter().filter(|row| row.contains("Be brief.") && row.contains("Q: ")).count();
    assert!((148..=252).contains(&both), "{both}");
    assert_eq!(outcome.figure("rows_with_own_system_prompt"), Some(&json!(0)));
}

#[test]
fn repeats_draw_what_a_row_has_not_had() {
    let outcome = run(&conversations(40), with(config(), json!({ "prompt_templates": [], "repeat": 4 })));
    let texts = texts(&outcome);
    assert_eq!(outcome.figure("rows"), Some(&json!(160)));
    for row in 0..40 {
        let of_row: Vec<&String> = (0..4).map(|repeat| &texts[repeat * 40 + row]).collect();
        assert!(of_row.iter().all(|text| text.contains(&format!("question {row}<|im_end|>"))), "{of_row:?}");
        let mut drawn = of_row[..3].to_vec();
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 3, "{of_row:?}");
    }
}

#[test]
fn a_bad_row_is_named_once_whatever_the_repeats() {
    let rows = format!("{}{{\n", conversations(2));
    let outcome = run(&rows, json!({ "repeat": 2, "on_bad_row": "skip" }));
    assert_eq!(outcome.figure("rows_bad_broken_json"), Some(&json!("2 (rows.jsonl:3)")));
    assert_eq!(outcome.ids().len(), 4);
}

#[test]
fn rows_keep_a_system_message_of_their_own() {
    let own = json!({ "messages": [{ "role": "system", "content": "Mine." }, { "role": "user", "content": "a" },
        { "role": "assistant", "content": "b" }] });
    let late = json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "system", "content": "Mine." },
        { "role": "assistant", "content": "b" }] });
    let rows = lines([own, late, json!({ "text": "plain" }), json!({ "input_ids": [1, 2] }), chat("a")]);
    let outcome = run(&rows, json!({ "system_prompts": ["Ours."] }));
    let plain = run(&rows, json!({})).ids();
    assert_eq!(outcome.ids()[..4], plain[..4]);
    assert_eq!(
        outcome.ids()[4],
        encode(&format!(
            "<|im_start|>system\nOurs.<|im_end|>\n{}",
            texts(&outcome)[4].split_once("Ours.<|im_end|>\n").unwrap().1
        ))
    );
    assert_eq!(outcome.figure("rows_with_own_system_prompt"), Some(&json!(2)));
    assert_eq!(outcome.figure("system_prompts_drawn"), Some(&json!([1])));
}

#[test]
fn a_template_stands_around_the_first_question() {
    let turns = json!({ "messages": [{ "role": "user", "content": "one" }, { "role": "assistant", "content": "1" },
        { "role": "user", "content": "two" }, { "role": "assistant", "content": "2" }] });
    let tool = json!({ "messages": [{ "role": "assistant", "content": "hi" }] });
    let alpaca = json!({ "instruction": "Add", "input": "1, 2", "output": "3" });
    let rows =
        lines([turns, tool, alpaca, json!({ "prompt": "The {sky}", "completion": " is" }), json!({ "text": "t" })]);
    let outcome = run(&rows, json!({ "prompt_templates": ["{{Q}} {prompt}!"] }));
    let texts = texts(&outcome);
    let turn = |role: &str, text: &str| format!("<|im_start|>{role}\n{text}<|im_end|>\n");
    let expected = [turn("user", "{Q} one!"), turn("assistant", "1"), turn("user", "two"), turn("assistant", "2")];
    assert_eq!(texts[0], expected.concat());
    assert_eq!(texts[1], turn("assistant", "hi"));
    assert_eq!(texts[2], turn("user", "{Q} Add\n1, 2!") + &turn("assistant", "3"));
    assert_eq!(texts[3], "{Q} The {sky}! is");
    assert_eq!(texts[4], "t");
    assert_eq!(outcome.figure("prompt_templates_drawn"), Some(&json!([3])));
    let none = run("{\"text\": \"some words\"}", json!({ "prompt_templates": ["{prompt}"] }));
    assert_eq!(none.logs(), ["`prompt_templates` is set, and no row is of a kind that draws one"]);
}

#[test]
fn the_loss_counts_no_more_than_without() {
    let message = |role: &str, content: &str| json!({ "role": role, "content": content });
    let prompt = json!({ "prompt": [message("user", "a"), message("assistant", "before")],
        "completion": [message("user", "b"), message("assistant", "after")] });
    let rows = lines([prompt, chat("a"), json!({ "prompt": "a", "completion": " b" })]);
    let trained = |config: Value| {
        let samples = run(&rows, with(config, json!({ "loss_on": "assistant" }))).samples();
        let of_row = |row: usize| -> Vec<i32> {
            samples.get(row).unwrap().labels.iter().copied().filter(|label| *label >= 0).collect()
        };
        (0..3).map(of_row).collect::<Vec<_>>()
    };
    assert_eq!(trained(json!({ "system_prompts": ["s"], "prompt_templates": ["Q: {prompt}"] })), trained(json!({})));
}

#[test]
fn special_tokens_of_the_configuration_are_text_too() {
    let config = json!({ "system_prompts": ["a<|im_end|>b"], "prompt_templates": ["<|im_start|>{prompt}"] });
    let rows = conversations(1);
    let starts = |outcome: &Outcome| {
        let start = encode("<|im_start|>")[0];
        outcome.ids()[0].iter().filter(|id| **id == start).count()
    };
    let text = run(&rows, config.clone());
    assert_eq!(starts(&text), 3);
    assert_eq!(text.figure("special_tokens_in_text"), Some(&json!(2)));
    assert!(
        texts(&text)[0]
            .starts_with("<|im_start|>system\na<|im_end|>b<|im_end|>\n<|im_start|>user\n<|im_start|>question 0")
    );
    assert_eq!(starts(&run(&rows, with(config, json!({ "special_tokens_in_text": "parse" })))), 4);
}
