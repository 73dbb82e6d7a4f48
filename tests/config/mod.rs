//! Pipeline files: what is refused, where and with which words; and what comes of the valid ones.

mod extends;
mod invalid;
mod loading;
mod matrix;
mod params;
mod rendering;
mod schema;

use std::{
    fs,
    path::{Path, PathBuf},
};

use pipe::{
    config::{self, ConfigError, Pipeline, Source},
    graph::Graph,
    registry,
};

/// A text as the file `pipeline.yaml`.
fn parse(text: &str) -> Result<Pipeline, ConfigError> {
    parse_with(text, &[])
}

/// The same with overrides.
fn parse_with(text: &str, overrides: &[(&str, &str)]) -> Result<Pipeline, ConfigError> {
    let overrides: Vec<_> = overrides.iter().map(|(path, value)| ((*path).to_owned(), (*value).to_owned())).collect();
    let source = Source::new("pipeline.yaml", text);
    let pipeline = config::parse(source, PathBuf::from("/project"), &overrides, registry::KINDS)?;
    Graph::new(&pipeline)?;
    Ok(pipeline)
}

/// The problems of an error, one a line: `LINE:COLUMN: message` and, if there is one, ` | help`.
fn lines(error: &ConfigError) -> Vec<String> {
    let problems = error.to_json();
    let line = |problem: &serde_json::Value| {
        let place = match (problem["line"].as_u64(), problem["column"].as_u64()) {
            (Some(line), Some(column)) if problem["file"] == "--set" => format!("set {line}:{column}"),
            (Some(line), Some(column)) => format!("{line}:{column}"),
            _ => "-".to_owned(),
        };
        let help = problem["help"].as_str().map(|help| format!(" | {help}")).unwrap_or_default();
        format!("{place}: {}{help}", problem["message"].as_str().unwrap_or_default())
    };
    problems.as_array().into_iter().flatten().map(line).collect()
}

/// The YAML files of a folder under `tests/pipelines`, in the order of their names.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines").join(folder);
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    files
}
