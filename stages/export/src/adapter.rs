//! The format `adapter`: the adapter as a PEFT folder that can be published.

use std::{fs::File, io, path::Path};

use pipe_hf::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, AdapterConfig, Checkpoint, copy_tokenizer_files};
use pipe_stage::Context;
use serde_json::{Map, Value};

use crate::{
    Config, Error,
    card::{Section, adapter_rows},
    files::{read, write},
};

const BASE_FIELD: &str = "base_model_name_or_path";

/// The size of an adapter.
#[derive(Clone, Copy)]
struct Weights {
    tensors: u64,
    values: u64,
    bytes: u64,
}

/// Copies the adapter, with the tokenizer of its base. Returns what the card says of it.
pub(crate) fn pack(
    adapter: &Path,
    model: &Path,
    base_model: Option<&str>,
    output: &Path,
    context: &Context,
) -> Result<Vec<Section>, Error> {
    let settings = AdapterConfig::open(adapter)?;
    let weights = copy_weights(adapter, output)?;
    write_settings(base_model, adapter, output)?;
    if copy_tokenizer_files(model, output)?.is_empty() {
        context.warn("the input `model` has no tokenizer files, so the export has none either");
    }
    context.figure("tensors", weights.tensors);
    context.figure("values", weights.values);
    context.figure("adapter_bytes", weights.bytes);
    let mut rows = adapter_rows(&settings);
    rows.push("tensors", weights.tensors);
    rows.push("values", weights.values);
    rows.push("bytes", weights.bytes);
    Ok(vec![Section { title: "Adapter", rows }])
}

/// The name that the base is published under, if there is one: the configured, or the adapter's own if it is no path.
pub(crate) fn base_model(config: &Config, adapter: Option<&Path>, context: &Context) -> Result<Option<String>, Error> {
    let found = match adapter {
        Some(adapter) => AdapterConfig::open(adapter)?.base_model,
        None => None,
    };
    Ok(match (&config.base_model_name_or_path, found) {
        (Some(name), _) => Some(name.clone()),
        (None, Some(found)) if crate::config::is_hub_name(&found) => Some(found),
        (None, Some(path)) => {
            context.warn(format!(
                "the adapter names its base `{path}`, which is no published model; the export names none. \
                 Set `{BASE_FIELD}` to name one."
            ));
            None
        }
        (None, None) => None,
    })
}

fn copy_weights(adapter: &Path, output: &Path) -> Result<Weights, Error> {
    let path = adapter.join(ADAPTER_WEIGHTS_FILE);
    let tensors = Checkpoint::open_file(&path)?;
    let mut weights = Weights { tensors: 0, values: 0, bytes: tensors.total_bytes() };
    for name in tensors.names() {
        weights.tensors += 1;
        weights.values += tensors.info(name)?.elements() as u64;
    }
    let mut from = File::open(&path).map_err(Error::io("read", &path))?;
    let target = output.join(ADAPTER_WEIGHTS_FILE);
    let mut to = File::create(&target).map_err(Error::io("create", &target))?;
    io::copy(&mut from, &mut to).map_err(Error::io("write", &target))?;
    Ok(weights)
}

/// Writes `adapter_config.json`, every field as it was but the base's name.
fn write_settings(base_model: Option<&str>, adapter: &Path, output: &Path) -> Result<(), Error> {
    let path = adapter.join(ADAPTER_CONFIG_FILE);
    let mut object: Map<String, Value> = read(&path, "a JSON object")?;
    object.insert(BASE_FIELD.to_owned(), base_model.map_or(Value::Null, Value::from));
    let mut text =
        serde_json::to_vec_pretty(&object).map_err(|source| Error::Json { path, expected: "a JSON object", source })?;
    text.push(b'\n');
    write(&output.join(ADAPTER_CONFIG_FILE), &text)
}
