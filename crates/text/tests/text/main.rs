//! Tokenizers and templates against their Python originals.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod conversations;
mod folders;
mod ids;
mod spans;
mod special;
mod streams;
mod templates;

use std::{fs, path::PathBuf};

use pipe_text::{ChatTemplate, Tokenizer};
use serde_json::{Value, json};

/// The tokenizer and template of Qwen3.
fn qwen3() -> PathBuf {
    let folder = root().join(".cache/qwen3-tokenizer");
    assert!(folder.exists(), "{} is missing: run scripts/qwen3-tokenizer", folder.display());
    folder
}

/// The small tokenizer of the quickstart, with the same special tokens.
fn quickstart() -> Tokenizer {
    Tokenizer::load(&root().join("examples/quickstart/tokenizer")).unwrap()
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn fixture(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

/// A template that stands in a folder of its own.
fn template(source: &str) -> ChatTemplate {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("chat_template.jinja"), source).unwrap();
    ChatTemplate::load(folder.path()).unwrap().unwrap()
}

fn user(content: &str) -> Value {
    json!({ "role": "user", "content": content })
}

fn assistant(content: &str) -> Value {
    json!({ "role": "assistant", "content": content })
}
