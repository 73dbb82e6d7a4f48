//! Pipeline files: YAML text to a [`Pipeline`], with every problem at its place.
//!
//! The way: read the text, parse it to nodes, put it on top of what it extends, put in the `--set`s, put in the
//! parameters and the values of matrices, and only then let values meet their types. Nodes keep their places all along. Nothing here prints, and no stage crate is named here: kinds
//! come in as a registry.

mod error;
mod extends;
mod matrix;
mod model;
mod overrides;
mod params;
mod read;
mod render;
mod report;
mod schema;
mod source;
mod stage;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use indexmap::IndexMap;
use pipe_stage::Declaration;
use pipe_yaml::{Key, Node, Parsed, Span, Value};

pub use error::ConfigError;
pub use model::{InputRef, Pipeline, StageName, StageSpec};
pub use render::render;
pub use schema::{canonical, execution_only_fields, schema};
pub use source::{Location, Source};
pub(crate) use stage::MAX_CPUS;

use crate::graph;

use self::{
    params::{MATRIX, Params},
    report::Report,
    stage::{Draft, Groups, Known, Places, Unsound},
};

/// Reads the pipeline file at `path`, with `overrides` (path and value of every `--set`, in order; a later one wins)
/// and the kinds of `registry`.
///
/// # Errors
/// That there is no such text, or everything that is wrong with it.
pub fn load(
    path: &Path,
    overrides: &[(String, String)],
    registry: &'static [Declaration],
) -> Result<Pipeline, ConfigError> {
    let text = read::text(path)?;
    let absolute = std::path::absolute(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let folder = absolute.parent().map_or_else(PathBuf::new, Path::to_owned);
    parse_with(Source::new(path, text), folder, overrides, registry, &read::text)
}

/// The same for a text that was read already. `folder` is what its relative paths start from. No file is read: the text
/// can extend none.
///
/// # Errors
/// Everything that is wrong with the text.
pub fn parse(
    source: Source,
    folder: PathBuf,
    overrides: &[(String, String)],
    registry: &'static [Declaration],
) -> Result<Pipeline, ConfigError> {
    let none = |path: &Path| Err(ConfigError::Missing { path: path.to_owned() });
    parse_with(source, folder, overrides, registry, &none)
}

fn parse_with(
    mut source: Source,
    folder: PathBuf,
    overrides: &[(String, String)],
    registry: &'static [Declaration],
    read: extends::Reader<'_>,
) -> Result<Pipeline, ConfigError> {
    let mut report = Report::default();
    let Parsed { root, problems } = pipe_yaml::parse_with_recovery(source.text());
    report.extend(problems);
    let Some(mut root) = root else { return Err(ConfigError::invalid(Arc::new(source), report.into_problems())) };
    point_at_keys(&mut root, source.text());
    if !extends::apply(&mut root, &mut source, &folder, read, &mut report) {
        return Err(ConfigError::invalid(Arc::new(source), report.into_problems()));
    }
    overrides::apply(&mut root, overrides, &mut source, &mut report);
    let read = document(&root, &source, &folder, registry, &mut report);
    let source = Arc::new(source);
    match read {
        Some((name, stages)) if !report.has_problems() => Ok(Pipeline { name, folder, source, stages }),
        _ => Err(ConfigError::invalid(source, report.into_problems())),
    }
}

type Stages = IndexMap<StageName, StageSpec>;

fn document(
    root: &Node,
    source: &Source,
    folder: &Path,
    registry: &'static [Declaration],
    report: &mut Report,
) -> Option<(String, Stages)> {
    let [name, params, stages, _] = report.fields(root, "a pipeline", ["name", "params", "stages", extends::FIELD])?;
    let mut params = Params::new(source, params, report);
    params.check(report);
    let name = match name {
        Some(node) => read_name(&params.interpolate(node, report), report),
        None => source.path().file_stem().map(|stem| stem.to_string_lossy().into_owned()),
    };
    let Some(stages) = stages else {
        let start = Span { start: root.span.start, end: root.span.start };
        report.add_with_help(
            start,
            "missing field `stages` of a pipeline",
            "a pipeline is `stages: { NAME: { kind: ... } }`",
        );
        return None;
    };
    let mut entries: Vec<(Key, Node)> = Vec::new();
    let mut groups = Groups::new();
    for (key, node) in report.entries(stages, "a mapping of names to stages")? {
        let Some(matrix) = node.get(MATRIX) else {
            entries.push((key.clone(), params.interpolate(node, report)));
            continue;
        };
        let matrix = params.interpolate(matrix, report);
        let stage = matrix::without(node);
        let group = groups.entry(key.name.as_str()).or_default();
        for matrix::Member { name, labels, values } in matrix::expand(key, &matrix, report) {
            let node = params.interpolate_member(&stage, values, report);
            group.push((name.clone(), labels));
            entries.push((Key { span: key.span, name }, node));
        }
    }
    if stages.entries().is_some_and(<[_]>::is_empty) {
        report.add_with_help(stages.span, "the pipeline has no stages", "add one: `NAME: { kind: ... }`");
    }
    // Every stage is read before any failure counts: that is how all problems are found.
    let drafts: Vec<_> = entries.iter().map(|entry| Draft::read((&entry.0, &entry.1), registry, report)).collect();
    let known = Known::of(&drafts, groups, report);
    let mut places = Places::default();
    let stages: Vec<_> =
        drafts.into_iter().map(|draft| draft.finish(&known, (source, folder), &mut places, report)).collect();
    if let Some(file) = source.path().file_name() {
        places.check(&folder.join(file), report);
    }
    if report.has_problems() {
        // In a pipeline without problems, whoever makes its graph finds the cycles.
        let taken = stages.iter().filter_map(|stage| match stage {
            Ok(stage) => Some((stage.name.clone(), stage.taken().cloned().collect())),
            Err(Unsound { name, taken }) => Some((name.clone()?, taken.clone())),
        });
        report.extend(graph::cycles(&taken.collect()));
    }
    let stages: Option<Stages> =
        stages.into_iter().map(|stage| stage.ok().map(|stage| (stage.name.clone(), stage))).collect();
    Some((name?, stages?))
}

/// The longest name of a pipeline, in characters.
const MAX_NAME_LENGTH: usize = 128;

fn read_name(node: &Node, report: &mut Report) -> Option<String> {
    let fits = |name: &&str| {
        (1..=MAX_NAME_LENGTH).contains(&name.chars().count()) && !name.chars().any(|c| c.is_control() || c == '/')
    };
    let name = node.as_text().filter(fits);
    if name.is_none() {
        let message = format!("expected a name, found {}", node.describe());
        report.add_with_help(node.span, message, format!("1 to {MAX_NAME_LENGTH} characters of one line, without `/`"));
    }
    name.map(str::to_owned)
}

/// Lets a list or mapping that starts below its key stand where the key is: an error that is about all of it, such as
/// a missing field, says more there than at its first entry.
fn point_at_keys(node: &mut Node, text: &str) {
    match &mut node.value {
        Value::Scalar { .. } => {}
        Value::Sequence(items) => items.iter_mut().for_each(|item| point_at_keys(item, text)),
        Value::Mapping(entries) => {
            for (key, value) in entries {
                let between = text.get(key.span.end..value.span.start).unwrap_or_default();
                if !matches!(value.value, Value::Scalar { .. }) && between.contains('\n') {
                    value.span = key.span;
                }
                point_at_keys(value, text);
            }
        }
    }
}
