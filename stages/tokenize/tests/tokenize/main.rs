//! The stage as the engine runs it: a job in, a folder of samples and events out.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

mod augment;
mod bad_rows;
mod columns;
mod formats;
mod layouts;
mod order;
mod shapes;
mod special;
mod too_long;

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use pipe_samples::Samples;
use pipe_stage::Level;
use pipe_text::Tokenizer;
use pipe_trial::{Ran, Trial};
use serde_json::{Value, json};
use stage_tokenize::{Config, Tokenize};

/// What a run left.
struct Outcome {
    ran: Ran,
    _folder: tempfile::TempDir,
}

impl Deref for Outcome {
    type Target = Ran;

    fn deref(&self) -> &Ran {
        &self.ran
    }
}

impl Outcome {
    fn samples(&self) -> Samples {
        if let Err(failure) = &self.result {
            panic!("{failure:?}");
        }
        Samples::load(&self.output()).unwrap()
    }

    fn ids(&self) -> Vec<Vec<u32>> {
        self.samples().iter().map(|sample| sample.input_ids.to_vec()).collect()
    }

    /// The warnings.
    fn logs(&self) -> Vec<&str> {
        self.said(Level::Warn)
    }
}

/// Runs the stage on inputs `data`, each a list of files with their bytes.
fn run_inputs(model: &Path, inputs: &[&[(&str, &[u8])]], config: Value, cancelled: bool) -> Outcome {
    let folder = tempfile::tempdir().unwrap();
    let mut trial = Trial::new(folder.path()).input("model", model).cancelled(cancelled);
    for (index, files) in inputs.iter().enumerate() {
        let input = folder.path().join(format!("data{index}"));
        for (name, bytes) in *files {
            let path = input.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
        trial = trial.input("data", &input);
    }
    Outcome { ran: trial.run::<Tokenize>(config), _folder: folder }
}

/// Runs the stage on one file with the quickstart's tokenizer.
fn run(rows: &str, config: Value) -> Outcome {
    run_inputs(&model(), &[&[("rows.jsonl", rows.as_bytes())]], config, false)
}

fn model() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../examples/quickstart/tokenizer")
}

fn encode(text: &str) -> Vec<u32> {
    Tokenizer::load(&model()).unwrap().encode(text).unwrap()
}

#[test]
fn the_configuration_is_checked() {
    let problems = |config: Value| -> Vec<String> {
        let found = pipe_trial::problems::<Tokenize>(config, &[]).into_iter();
        found.map(|(path, message, _)| format!("{path} {message}")).collect()
    };
    assert_eq!(problems(json!({})), [""; 0]);
    let wrong = json!({ "max_length": 0, "padding": true, "batch_size": 0, "num_proc": 0,
        "repeat": 0, "system_prompts": ["a", ""], "prompt_templates": ["{prompt}", "Q: {question}", "Q:"],
        "chat_template_kwargs": { "enable_thinking": false, "tools": [] } });
    let expected = [
        "max_length must be at least 1",
        "padding samples are never padded",
        "chat_template_kwargs.tools is what the stage itself hands to the template",
        "system_prompts.1 must not be empty",
        "prompt_templates.1 has {question}, and only {prompt} stands for something",
        "prompt_templates.2 has no {prompt}, so it would leave out what the row asks",
        "repeat must be from 1 to 1,000,000",
        "batch_size must be at least 1",
        "num_proc must be at least 1",
    ];
    assert_eq!(problems(wrong), expected);
    assert!(serde_json::from_value::<Config>(json!({ "max_len": 1 })).is_err());
}

#[test]
fn only_batches_and_threads_are_execution_only() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let fields = schema["properties"].as_object().unwrap();
    let execution_only = |(_, field): &(&String, &Value)| field[pipe_stage::EXECUTION_ONLY] == true;
    let names: Vec<_> = fields.iter().filter(execution_only).map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["batch_size", "num_proc"]);
    assert!(fields.values().all(|field| field.get("description").is_some()));
}
