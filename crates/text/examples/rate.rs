//! How fast one thread renders and encodes: `cargo run --release -p pipe-text --example rate -- MODEL-FOLDER ROWS.jsonl`.
#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "a program to measure with")]

use std::{env, fs, time::Instant};

use pipe_text::{ChatTemplate, Conversation, SpecialInText, Tokenizer};
use serde_json::Value;

fn main() {
    let arguments: Vec<String> = env::args().collect();
    let [_, model, rows] = arguments.as_slice() else { panic!("usage: rate MODEL-FOLDER ROWS.jsonl") };
    let tokenizer = Tokenizer::load(model.as_ref()).unwrap();
    let template = ChatTemplate::load(model.as_ref()).unwrap().unwrap();
    let lines = fs::read_to_string(rows).unwrap();
    let lines: Vec<&str> = lines.lines().take(20_000).collect();
    let step = |name: &str, bytes: usize, tokens: usize, start: Instant| {
        let (seconds, rows) = (start.elapsed().as_secs_f64(), lines.len() as f64);
        let (rows, bytes, tokens) = (rows / seconds, bytes as f64 / 1e6 / seconds, tokens as f64 / seconds);
        println!(
            "{{\"step\": \"{name}\", \"rows_per_second\": {rows:.0}, \"megabytes_per_second\": {bytes:.1}, \"tokens_per_second\": {tokens:.0}}}"
        );
    };
    let start = Instant::now();
    let rows: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    step("parse", lines.iter().map(|line| line.len()).sum(), 0, start);

    let start = Instant::now();
    let rendered: Vec<_> = rows
        .iter()
        .map(|row| {
            let messages = row["messages"].as_array().unwrap();
            let conversation = Conversation { messages, tools: None, add_generation_prompt: false };
            template.render_told(&conversation, &tokenizer).unwrap()
        })
        .collect();
    let bytes = rendered.iter().map(|rendered| rendered.text().len()).sum();
    step("render", bytes, 0, start);

    let start = Instant::now();
    let ids = |rendered| tokenizer.encode_rendered(rendered, SpecialInText::Text).unwrap().len();
    let tokens = rendered.iter().map(ids).sum();
    step("encode", bytes, tokens, start);

    let start = Instant::now();
    for (row, rendered) in rows.iter().zip(&rendered) {
        let messages = row["messages"].as_array().unwrap();
        let conversation = Conversation { messages, tools: None, add_generation_prompt: false };
        let spans = template.assistant_spans(&conversation, rendered, &tokenizer).unwrap();
        tokenizer.encode_rendered_spans(rendered, SpecialInText::Text, &spans).unwrap();
    }
    step("encode with the assistant's mask", bytes, tokens, start);
}
