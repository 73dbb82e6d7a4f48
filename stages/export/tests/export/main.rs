//! The stage as the engine runs it: what it copies, what it changes, and the card.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod formats;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use pipe_hf::{Dtype, TensorSpec, write_safetensors};
use pipe_stage::{Digest, Event, Failure};
use pipe_trial::Trial;
use serde_json::{Value, json};
use stage_export::Export;

const KEY: &str = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";

/// What an artifact holds, by name.
type Files = BTreeMap<String, Vec<u8>>;

struct Stage {
    folder: tempfile::TempDir,
    config: Value,
    evaluations: Vec<PathBuf>,
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

impl Stage {
    /// An adapter of one tensor with the summary of its training.
    fn new(config: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let adapter = folder.path().join("adapter");
        fs::create_dir(&adapter).unwrap();
        fs::copy(fixture("adapter/adapter_config.json"), adapter.join("adapter_config.json")).unwrap();
        let spec = TensorSpec::new(KEY, Dtype::F32, [2, 3]);
        write_safetensors(&adapter.join("adapter_model.safetensors"), &[(spec, &[7; 24])]).unwrap();
        let training = json!({
            "pipe": "0.1.0", "updates": 30, "samples": 46, "tokens": 2048, "trained_values": 6,
            "config": { "lora": { "r": 8 }, "learning_rate": 1e-4, "lr_scheduler_type": "cosine", "warmup_steps": null,
                        "prompts": ["a", "b"], "bf16": true },
        });
        fs::write(adapter.join("training.json"), training.to_string()).unwrap();
        fs::write(adapter.join("metrics.jsonl"), "{}\n").unwrap();
        Self { folder, config, evaluations: Vec::new() }
    }

    fn adapter(&self) -> PathBuf {
        self.folder.path().join("adapter")
    }

    fn add_evaluation(&mut self, report: &Value) {
        let folder = self.folder.path().join(format!("evaluation{}", self.evaluations.len()));
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("report.json"), report.to_string()).unwrap();
        self.evaluations.push(folder);
    }

    /// The artifact, and the events.
    fn run(&self) -> Result<(Files, Vec<Event>), Failure> {
        let output = tempfile::tempdir().unwrap();
        let trial = Trial::new(output.path()).input("adapter", &self.adapter()).input("model", &fixture("model"));
        let trial = self.evaluations.iter().fold(trial, |trial, path| trial.input("evaluation", path));
        let ran = trial.run::<Export>(self.config.clone()).done()?;
        let files = fs::read_dir(ran.output()).unwrap().map(|entry| entry.unwrap().path());
        let files =
            files.map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read(&path).unwrap()));
        Ok((files.collect(), ran.events))
    }
}

#[test]
fn the_artifact_is_the_adapter_with_tokenizer_and_card() {
    let mut stage = Stage::new(json!({
        "base_model_name_or_path": "Qwen/Qwen3-0.6B", "license": "apache-2.0", "language": ["en", "zh"],
    }));
    stage.add_evaluation(&json!({
        "adapter": false, "bf16": true, "samples": 12, "tokens": 345, "loss": 3.25, "perplexity": 25.790339917193062,
    }));
    stage.add_evaluation(&json!({
        "adapter": true, "bf16": true, "samples": 12, "tokens": 345, "loss": 2.5, "perplexity": 12.182493960703473,
    }));
    let (files, _) = stage.run().unwrap();
    let names: Vec<&str> = files.keys().map(String::as_str).collect();
    assert_eq!(
        names,
        [
            "README.md",
            "adapter_config.json",
            "adapter_model.safetensors",
            "chat_template.jinja",
            "tokenizer.json",
            "tokenizer_config.json",
        ]
    );
    assert!(files["adapter_model.safetensors"] == fs::read(stage.adapter().join("adapter_model.safetensors")).unwrap());
    assert!(files["tokenizer.json"] == fs::read(fixture("model/tokenizer.json")).unwrap());
    let card = String::from_utf8(files["README.md"].clone()).unwrap();
    let expected = include_str!("card.md")
        .replace("VERSION", env!("CARGO_PKG_VERSION"))
        .replace("ADAPTER", &Digest::of(b"adapter").to_string())
        .replace("MODEL", &Digest::of(b"model").to_string());
    assert_eq!(card, expected);
    assert!(stage.run().unwrap().0 == files, "again the same bytes");
}

#[test]
fn only_the_name_of_the_base_changes_in_the_settings() {
    let before: Value = serde_json::from_slice(&fs::read(fixture("adapter/adapter_config.json")).unwrap()).unwrap();
    let settings = |config: Value| -> Value {
        let (files, _) = Stage::new(config).run().unwrap();
        serde_json::from_slice(&files["adapter_config.json"]).unwrap()
    };
    assert_eq!(settings(json!({})), before, "a published name stays");
    let mut named = settings(json!({ "base_model_name_or_path": "Qwen/Qwen3-1.7B" }));
    assert_eq!(named["base_model_name_or_path"], json!("Qwen/Qwen3-1.7B"));
    named["base_model_name_or_path"] = before["base_model_name_or_path"].clone();
    assert_eq!(named, before);
}

#[test]
fn a_path_never_leaves_this_machine() {
    let stage = Stage::new(json!({}));
    let path = stage.adapter().join("adapter_config.json");
    let text = fs::read_to_string(&path).unwrap().replace("\"model_tied\"", "\"/home/somebody/model\"");
    fs::write(&path, text).unwrap();
    let (files, events) = stage.run().unwrap();
    let events = format!("{events:?}");
    for (name, bytes) in &files {
        assert!(!String::from_utf8_lossy(bytes).contains("somebody"), "{name}");
    }
    assert!(events.contains("names its base `/home/somebody/model`, which is no published model"), "{events}");
    let settings: Value = serde_json::from_slice(&files["adapter_config.json"]).unwrap();
    assert_eq!(settings["base_model_name_or_path"], Value::Null);
}

#[test]
fn an_adapter_of_somebody_elses_making_needs_no_summary() {
    let stage = Stage::new(json!({ "title": "An adapter | of mine" }));
    fs::remove_file(stage.adapter().join("training.json")).unwrap();
    let (files, _) = stage.run().unwrap();
    let card = String::from_utf8(files["README.md"].clone()).unwrap();
    assert!(
        card.contains("# An adapter | of mine\n") && !card.contains("## Training") && !card.contains("## Evaluation")
    );
}

#[test]
fn broken_inputs_are_named() {
    let failure = |stage: &Stage| stage.run().unwrap_err().chain().join(": ");
    let mut stage = Stage::new(json!({}));
    stage.add_evaluation(&json!({ "loss": 1.0 }));
    assert!(failure(&stage).contains("report.json is not a report of evaluate: missing field"), "{}", failure(&stage));
    let stage = Stage::new(json!({}));
    fs::write(stage.adapter().join("adapter_model.safetensors"), b"short").unwrap();
    assert!(failure(&stage).contains("adapter_model.safetensors is not a valid safetensors file"));
    let stage = Stage::new(json!({}));
    fs::remove_file(stage.adapter().join("adapter_config.json")).unwrap();
    assert!(failure(&stage).contains("adapter_config.json"));
}

#[test]
fn every_problem_of_the_configuration_is_reported() {
    let paths = |config: Value| {
        pipe_trial::problems::<Export>(config, &["model", "adapter"])
            .into_iter()
            .map(|(path, ..)| path)
            .collect::<Vec<_>>()
    };
    assert_eq!(paths(json!({})), Vec::<String>::new());
    for name in ["/models/qwen", "./qwen", "../qwen", "a/b/c", "a//b", "", "owner/", "C:\\qwen", "owner/na me"] {
        assert_eq!(paths(json!({ "base_model_name_or_path": name })), ["base_model_name_or_path"], "{name}");
    }
    for name in ["gpt2", "Qwen/Qwen3-1.7B"] {
        assert!(paths(json!({ "base_model_name_or_path": name })).is_empty(), "{name}");
    }
    let wrong = json!({ "title": "two\nlines", "license": " ", "language": ["en", "english, mostly"] });
    assert_eq!(paths(wrong), ["title", "license", "language"]);
}
