//! The kind `quantize`: bitsandbytes' own checkpoints, byte for byte, and what it refuses.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod checkpoints;
mod config;
mod refusals;

use std::{
    fs,
    path::{Path, PathBuf},
};

use pipe_hf::{Checkpoint, Dtype, TensorSpec, write_safetensors};
use pipe_stage::{Event, Failure};
use pipe_trial::Trial;
use stage_quantize::{Config, Quantize};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn config(fields: &str) -> Config {
    serde_json::from_str(fields).unwrap()
}

/// Runs the stage on `model`, into `output/out`. Returns its events.
fn quantize(model: &Path, output: &Path, config: &Config, cpus: usize) -> Result<Vec<Event>, Failure> {
    let trial = Trial::new(output).input("model", model).cpus(cpus);
    trial.run_config::<Quantize>(config).done().map(|ran| ran.events)
}

/// Copies a model with its weights in another type, cut into two shards.
fn convert_and_shard(from: &Path, to: &Path, dtype: Dtype) {
    let checkpoint = Checkpoint::open(from).unwrap();
    fs::create_dir_all(to).unwrap();
    fs::copy(from.join("config.json"), to.join("config.json")).unwrap();
    let mut shards = [Vec::new(), Vec::new()];
    let mut weight_map = serde_json::Map::new();
    for (i, name) in checkpoint.names().enumerate() {
        let values = checkpoint.read_f32(name).unwrap();
        let bytes: Vec<u8> = match dtype {
            Dtype::BF16 => values.iter().flat_map(|value| half::bf16::from_f32(*value).to_le_bytes()).collect(),
            Dtype::F16 => values.iter().flat_map(|value| half::f16::from_f32(*value).to_le_bytes()).collect(),
            _ => values.iter().flat_map(|value| value.to_le_bytes()).collect(),
        };
        shards[i % 2].push((TensorSpec::new(name, dtype, checkpoint.info(name).unwrap().shape.clone()), bytes));
        weight_map.insert(name.to_owned(), format!("model-{}.safetensors", i % 2).into());
    }
    for (i, shard) in shards.iter().enumerate() {
        let borrowed: Vec<_> = shard.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
        write_safetensors(&to.join(format!("model-{i}.safetensors")), &borrowed).unwrap();
    }
    let index = serde_json::json!({"metadata": {}, "weight_map": weight_map});
    fs::write(to.join("model.safetensors.index.json"), index.to_string()).unwrap();
}

/// Changes fields of a model's `config.json`.
fn edit_config(model: &Path, edit: impl FnOnce(&mut serde_json::Map<String, serde_json::Value>)) {
    let text = fs::read(model.join("config.json")).unwrap();
    let mut object = serde_json::from_slice(&text).unwrap();
    edit(&mut object);
    fs::write(model.join("config.json"), serde_json::to_vec(&object).unwrap()).unwrap();
}
