//! The kind `init_model`: models that any reader takes, the same ones everywhere.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod config;
mod weights;

use std::path::{Path, PathBuf};

use pipe_hf::{Checkpoint, ModelConfig};
use pipe_stage::Failure;
use pipe_trial::Trial;
use stage_init_model::{Config, InitModel};

const TINY: &str = r#"{"config": {"vocab_size": 300, "hidden_size": 32, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}}"#;

fn config(fields: &str) -> Config {
    serde_json::from_str(fields).unwrap()
}

fn tiny(edit: impl FnOnce(&mut Config)) -> Config {
    let mut config = config(TINY);
    edit(&mut config);
    config
}

/// Runs the stage. Returns the folder of the model.
fn init(config: &Config, tokenizer: Option<&Path>, output: &Path, cpus: usize) -> Result<PathBuf, Failure> {
    let mut trial = Trial::new(output).cpus(cpus);
    if let Some(tokenizer) = tokenizer {
        trial = trial.input("tokenizer", tokenizer);
    }
    trial.run_config::<InitModel>(config).done().map(|ran| ran.output())
}

/// The model that the stage makes, read back.
fn made(config: &Config, tokenizer: Option<&Path>) -> (tempfile::TempDir, ModelConfig, Checkpoint) {
    let dir = tempfile::tempdir().unwrap();
    let folder = init(config, tokenizer, dir.path(), 2).unwrap();
    let (model, checkpoint) = (ModelConfig::open(&folder).unwrap(), Checkpoint::open(&folder).unwrap());
    checkpoint.check(&model).unwrap();
    (dir, model, checkpoint)
}
