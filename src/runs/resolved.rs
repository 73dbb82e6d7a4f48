//! A pipeline as it was meant: what a run keeps of the file that it was read from.

use std::path::Path;

use pipe_stage::Resources;
use serde_json::{Value, json};

use crate::config::{InputRef, Pipeline, StageSpec};

/// What begins the name of a file where other schemes could.
const FILE: &str = "file://";

/// The pipeline with nothing left to fill in, as YAML: parameters put in, overrides applied, defaults filled in. It can
/// be run as it stands.
pub fn resolved_yaml(pipeline: &Pipeline) -> String {
    let stages: serde_json::Map<String, Value> =
        pipeline.stages.iter().map(|(name, spec)| (name.to_string(), resolved_stage(pipeline, spec))).collect();
    to_yaml(&json!({ "name": pipeline.name, "stages": stages }))
}

/// Line breaks to YAML 1.1, which is what is written, and characters like any other to YAML 1.2, which is what is read.
const FORMER_BREAKS: [(char, &str); 3] = [('\u{85}', "\\u0085"), ('\u{2028}', "\\u2028"), ('\u{2029}', "\\u2029")];

/// JSON as YAML that says the same.
pub(crate) fn to_yaml(value: &Value) -> String {
    // JSON of strings, numbers, lists and maps can always be written.
    let yaml = serde_yaml::to_string(value).unwrap_or_default();
    if !yaml.contains(FORMER_BREAKS.map(|(character, _)| character)) {
        return yaml;
    }
    // Text around them would be indented, and so changed. JSON is YAML too, and has escapes for them.
    let json = format!("{value:#}\n");
    FORMER_BREAKS.iter().fold(json, |json, (character, escape)| json.replace(*character, escape))
}

fn resolved_stage(pipeline: &Pipeline, spec: &StageSpec) -> Value {
    let mut stage = serde_json::Map::from_iter([("kind".to_owned(), spec.declaration.kind.into())]);
    let inputs = resolved_inputs(pipeline, spec);
    if !inputs.is_empty() {
        stage.insert("inputs".to_owned(), Value::Object(inputs));
    }
    stage.insert("with".to_owned(), escaped(&with(pipeline, spec)));
    let Resources { cpus, memory_bytes, gpus, time_seconds } = spec.resources;
    let resources = [
        ("cpus", cpus.map(Value::from)),
        ("memory", memory_bytes.map(Value::from)),
        ("gpus", (gpus > 0).then(|| gpus.into())),
        ("time", time_seconds.map(seconds)),
    ];
    let resources: serde_json::Map<String, Value> =
        resources.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect();
    if !resources.is_empty() {
        stage.insert("resources".to_owned(), Value::Object(resources));
    }
    if spec.retries > 0 {
        stage.insert("retries".to_owned(), spec.retries.into());
    }
    if let Some(timeout) = spec.timeout {
        stage.insert("timeout".to_owned(), seconds(timeout.as_secs()));
    }
    let checkout =
        spec.checkout.iter().map(|(output, path)| (output.clone(), from_here(pipeline, path).to_string_lossy().into()));
    let checkout: serde_json::Map<String, Value> = checkout.collect();
    if !checkout.is_empty() {
        stage.insert("outputs".to_owned(), escaped(&Value::Object(checkout)));
    }
    Value::Object(stage)
}

fn resolved_inputs(pipeline: &Pipeline, spec: &StageSpec) -> serde_json::Map<String, Value> {
    let source = |input: &InputRef| {
        let only = pipeline.stages.get(&input.stage).is_some_and(|maker| maker.outputs.len() == 1);
        if only { input.stage.to_string() } else { format!("{}.{}", input.stage, input.output) }
    };
    let taken = spec.inputs.iter().map(|(port, sources)| {
        let value = match &sources[..] {
            [one] => source(one).into(),
            several => several.iter().map(source).collect(),
        };
        (port.clone(), value)
    });
    let files = spec.user_files.iter().filter_map(|file| {
        let name = file.field.strip_prefix("inputs.")?;
        Some((name.to_owned(), escaped(&format!("file://{}", from_here(pipeline, &file.path).display()).into())))
    });
    taken.chain(files).collect()
}

/// The configuration, whose files are named as they are found from the pipeline's own folder. Those that stand in a file
/// which is extended start from the folder of that one.
fn with(pipeline: &Pipeline, spec: &StageSpec) -> Value {
    let mut config = spec.config.clone();
    for file in &spec.user_files {
        let Some(text) = spec.file_text(file) else { continue };
        let (scheme, written) = text.split_at(text.strip_prefix(FILE).map_or(0, |_| FILE.len()));
        if Path::new(written) == file.path {
            continue;
        }
        let path = from_here(pipeline, &file.path);
        let named = match spec.kept_path(file) {
            // The folder, and what is kept of the path.
            Some(kept) => format!("{}/./{kept}", above(path, Path::new(kept)).display()),
            None => format!("{scheme}{}", path.display()),
        };
        let pointer = format!("/{}", file.field.replace('.', "/"));
        if let Some(value) = config.pointer_mut(&pointer) {
            *value = named.into();
        }
    }
    config
}

/// A path from the folder of the pipeline, if it was made by going on from there.
fn from_here<'path>(pipeline: &Pipeline, path: &'path Path) -> &'path Path {
    path.strip_prefix(&pipeline.folder).unwrap_or(path)
}

/// A path without what it ends in.
fn above<'path>(path: &'path Path, end: &Path) -> &'path Path {
    end.components().try_fold(path, |path, _| path.parent()).unwrap_or(path)
}

fn seconds(seconds: u64) -> Value {
    format!("{seconds}s").into()
}

/// The same value, with nothing in it that would be taken for a parameter.
fn escaped(value: &Value) -> Value {
    match value {
        Value::String(text) => text.replace("${", "$${").into(),
        Value::Array(items) => items.iter().map(escaped).collect(),
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), escaped(value))).collect(),
        value => value.clone(),
    }
}
