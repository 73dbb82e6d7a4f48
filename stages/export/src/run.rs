//! The work of an `export` stage.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use pipe_hf::{ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, AdapterConfig, Checkpoint, copy_tokenizer_files};
use pipe_stage::{Context, Failure, Stage};
use serde_json::{Map, Value};

use crate::{
    Config, Error, Export,
    card::{Card, Report, Training, Weights},
};

/// What `train` says about a run, beside its adapter.
const TRAINING_FILE: &str = "training.json";
/// What `evaluate` writes.
const REPORT_FILE: &str = "report.json";
const CARD_FILE: &str = "README.md";
const BASE_FIELD: &str = "base_model_name_or_path";

impl Stage for Export {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let (model, adapter, output) = (context.input("model")?, context.input("adapter")?, context.output());
        let settings = AdapterConfig::open(adapter)?;
        let weights = copy_weights(adapter, &output)?;
        let base_model = write_settings(config, adapter, &output, context)?;
        let tokenizer_files = copy_tokenizer_files(model, &output)?;
        if tokenizer_files.is_empty() {
            context.warn("the input `model` has no tokenizer files, so the export has none either");
        }
        let card = Card {
            config,
            base_model: base_model.as_deref(),
            settings: &settings,
            weights,
            training: read_optional::<Training>(&adapter.join(TRAINING_FILE), "a training summary of train")?,
            reports: context
                .inputs("evaluation")
                .map(|folder| read::<Report>(&folder.join(REPORT_FILE), "a report of evaluate"))
                .collect::<Result<_, _>>()?,
            digests: ["adapter", "model"]
                .into_iter()
                .filter_map(|name| Some((name, context.job().inputs.get(name)?.first()?.digest)))
                .collect(),
        };
        write(&output.join(CARD_FILE), card.to_string().as_bytes())?;
        context.figure("tensors", weights.tensors);
        context.figure("values", weights.values);
        context.figure("adapter_bytes", weights.bytes);
        Ok(())
    }
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

/// Writes `adapter_config.json`, every field as it was but the base's name. Returns that name.
fn write_settings(config: &Config, adapter: &Path, output: &Path, context: &Context) -> Result<Option<String>, Error> {
    let path = adapter.join(ADAPTER_CONFIG_FILE);
    let mut object: Map<String, Value> = read(&path, "a JSON object")?;
    let found = object.get(BASE_FIELD).and_then(Value::as_str).map(str::to_owned);
    let name = match (&config.base_model_name_or_path, found) {
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
    };
    object.insert(BASE_FIELD.to_owned(), name.clone().map_or(Value::Null, Value::String));
    let mut text =
        serde_json::to_vec_pretty(&object).map_err(|source| Error::Json { path, expected: "a JSON object", source })?;
    text.push(b'\n');
    write(&output.join(ADAPTER_CONFIG_FILE), &text)?;
    Ok(name)
}

fn read<T: serde::de::DeserializeOwned>(path: &Path, expected: &'static str) -> Result<T, Error> {
    let text = fs::read(path).map_err(Error::io("read", path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), expected, source })
}

fn read_optional<T: serde::de::DeserializeOwned>(path: &Path, expected: &'static str) -> Result<Option<T>, Error> {
    if path.exists() { read(path, expected).map(Some) } else { Ok(None) }
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Error> {
    fs::write(path, bytes).map_err(Error::io("write", path))
}
