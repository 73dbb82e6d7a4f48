//! What differs between two runs.
//!
//! Two runs are equal if they brought the same stages to the same artifacts under the same keys. How long that took, and
//! on what, makes no difference to that, but is told.

use std::collections::BTreeMap;

use indexmap::{IndexMap, IndexSet};
use pipe_stage::Digest;
use serde::Serialize;
use serde_json::Value;

use super::{Outcome, RunId, RunRecord, StageRun, figures};
use crate::cache::{FileIdentity, Identity, Key};

/// One of two runs, with what the cache knows of it.
#[derive(Debug, Clone)]
pub struct Side {
    /// The run, its hits [completed](super::Runs::complete).
    pub record: RunRecord,
    /// Its resolved pipeline; `None` if it is gone.
    pub pipeline: Option<Value>,
    /// What went into each stage that has an action record.
    pub identities: BTreeMap<String, Identity>,
}

/// What differs between run `a` and run `b`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RunDiff {
    /// The first run.
    pub a: RunId,
    /// The second.
    pub b: RunId,
    /// Whether both brought the same stages to the same artifacts under the same keys.
    pub equal: bool,
    /// The pipeline's name and file, the version of `pipe`, and the machine.
    pub run: Vec<Change>,
    /// Seconds.
    pub duration: Pair<f64>,
    /// Every stage of either run, in the order of the second.
    pub stages: IndexMap<String, StageDiff>,
}

/// What differs in a stage. What is the same is left out.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StageDiff {
    /// Which of the runs has the stage.
    pub in_runs: InRuns,
    /// The kind and the fields of the pipeline file: inputs, resources, and those of `with` (dots between the parts).
    pub config: Vec<Change>,
    /// What the names of things elsewhere stand for, by the field that holds them.
    pub pins: Vec<Change>,
    /// The user's files by field; of a folder that changed the digest is another one.
    pub files: Vec<Change>,
    /// The declared environment variables whose values differ, which are not told.
    pub environment_variables: Vec<String>,
    /// The artifacts of the inputs.
    pub inputs: Vec<Change>,
    /// How it ended.
    pub outcome: Option<Pair<Option<Outcome>>>,
    /// Its key.
    pub key: Option<Pair<Option<Key>>>,
    /// Its artifacts by output.
    pub outputs: Vec<Change>,
    /// Its figures and last measurements.
    pub figures: Vec<FigureChange>,
    /// What made its artifacts: device, threads, versions.
    pub environment: Vec<Change>,
    /// How long its worker took, in seconds, if it ran in both.
    pub duration: Option<Pair<f64>>,
}

/// Where a stage is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InRuns {
    /// In both runs.
    #[default]
    Both,
    /// Only in the first.
    OnlyA,
    /// Only in the second.
    OnlyB,
}

/// A value in the first run, and in the second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Pair<T> {
    /// In the first run.
    pub from: T,
    /// In the second.
    pub to: T,
}

/// A value that differs. `None` where there is none.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// What it is a value of.
    pub field: String,
    /// In the first run.
    pub from: Option<Value>,
    /// In the second.
    pub to: Option<Value>,
}

/// A figure that differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FigureChange {
    /// Its name.
    pub name: String,
    /// In the first run.
    pub from: Option<Value>,
    /// In the second.
    pub to: Option<Value>,
    /// The second less the first, if both are numbers.
    pub difference: Option<f64>,
}

impl RunDiff {
    /// Compares two runs.
    pub fn between(a: &Side, b: &Side) -> Self {
        let names: IndexSet<&String> = b.record.stages.keys().chain(a.record.stages.keys()).collect();
        let stages: IndexMap<String, StageDiff> =
            names.into_iter().map(|name| (name.clone(), StageDiff::between(name, a, b))).collect();
        Self {
            a: a.record.id.clone(),
            b: b.record.id.clone(),
            equal: stages.values().all(StageDiff::is_equal),
            run: changes(&about(&a.record), &about(&b.record)),
            duration: Pair { from: a.record.duration_seconds, to: b.record.duration_seconds },
            stages,
        }
    }
}

impl StageDiff {
    fn between(name: &str, a: &Side, b: &Side) -> Self {
        let (stage_a, stage_b) = (a.record.stages.get(name), b.record.stages.get(name));
        let identity = |side: &Side| side.identities.get(name).map(parts).unwrap_or_default();
        let (identity_a, identity_b) = (identity(a), identity(b));
        let both = stage_a.zip(stage_b);
        let known = |side: &Side| side.identities.contains_key(name);
        let comparable = known(a) && known(b);
        let compare = |part: fn(&Parts) -> &Fields| {
            if comparable { changes(part(&identity_a), part(&identity_b)) } else { Vec::new() }
        };
        Self {
            in_runs: match (stage_a, stage_b) {
                (_, None) => InRuns::OnlyA,
                (None, _) => InRuns::OnlyB,
                _ => InRuns::Both,
            },
            config: match (written(a, name), written(b, name)) {
                (Some(a), Some(b)) if both.is_some() => changes(&a, &b),
                _ => Vec::new(),
            },
            pins: compare(|parts| &parts.pins),
            files: compare(|parts| &parts.files),
            environment_variables: compare(|parts| &parts.variables).into_iter().map(|change| change.field).collect(),
            inputs: compare(|parts| &parts.inputs),
            outcome: pair(stage_a.map(|stage| stage.outcome), stage_b.map(|stage| stage.outcome)),
            key: pair(stage_a.and_then(|stage| stage.key), stage_b.and_then(|stage| stage.key)),
            outputs: changes(&outputs(stage_a), &outputs(stage_b)),
            figures: figure_changes(&all_figures(stage_a), &all_figures(stage_b)),
            environment: changes(&environment(stage_a), &environment(stage_b)),
            duration: both
                .filter(|(a, b)| a.outcome == Outcome::Ran && b.outcome == Outcome::Ran)
                .map(|(a, b)| Pair { from: a.duration_seconds, to: b.duration_seconds }),
        }
    }

    /// Whether both runs brought the stage to the same artifacts under the same key.
    pub fn is_equal(&self) -> bool {
        let up_to_date = |outcome: Option<Outcome>| matches!(outcome, Some(Outcome::Hit | Outcome::Ran));
        let outcomes = self.outcome.is_none_or(|pair| up_to_date(pair.from) == up_to_date(pair.to));
        self.in_runs == InRuns::Both && self.key.is_none() && self.outputs.is_empty() && outcomes
    }
}

type Fields = BTreeMap<String, Value>;

/// What an identity holds apart from the configuration.
#[derive(Default)]
struct Parts {
    pins: Fields,
    files: Fields,
    variables: Fields,
    inputs: Fields,
}

fn parts(identity: &Identity) -> Parts {
    let file = |file: &FileIdentity| format!("{} ({})", file.name, file.digest);
    let digests = |digests: &Vec<Digest>| match digests[..] {
        [one] => one.to_string().into(),
        _ => digests.iter().map(Digest::to_string).collect(),
    };
    Parts {
        pins: identity.pins.iter().map(|(field, pin)| (field.clone(), pin.clone().into())).collect(),
        files: identity.files.iter().map(|(field, identity)| (field.clone(), file(identity).into())).collect(),
        variables: identity
            .environment
            .iter()
            .map(|(name, value)| (name.clone(), value.map(|value| value.to_string()).into()))
            .collect(),
        inputs: identity.inputs.iter().map(|(input, artifacts)| (input.clone(), digests(artifacts))).collect(),
    }
}

/// The fields of a stage in the resolved pipeline, those of `with` without that word before them.
fn written(side: &Side, stage: &str) -> Option<Fields> {
    let fields = side.pipeline.as_ref()?.get("stages")?.get(stage)?.as_object()?;
    let mut flat = Fields::new();
    for (field, value) in fields {
        flatten(if field == "with" { "" } else { field }, value, &mut flat);
    }
    Some(flat)
}

fn flatten(path: &str, value: &Value, flat: &mut Fields) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, value) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, flat);
            }
        }
        _ if path.is_empty() => {}
        value => drop(flat.insert(path.to_owned(), value.clone())),
    }
}

fn about(record: &RunRecord) -> Fields {
    let mut fields = Fields::new();
    fields.insert("pipeline".to_owned(), record.pipeline.clone().into());
    fields.insert("file".to_owned(), record.file.to_string_lossy().into());
    fields.insert("pipe".to_owned(), record.version.clone().into());
    // A struct of strings and numbers is always JSON.
    flatten("machine", &serde_json::to_value(&record.machine).unwrap_or_default(), &mut fields);
    fields
}

fn outputs(stage: Option<&StageRun>) -> Fields {
    let outputs = stage.into_iter().flat_map(|stage| &stage.outputs);
    outputs.map(|(output, digest)| (output.clone(), digest.to_string().into())).collect()
}

fn environment(stage: Option<&StageRun>) -> Fields {
    let mut fields = Fields::new();
    let made = stage.filter(|stage| matches!(stage.outcome, Outcome::Ran | Outcome::Hit));
    if let Some(Ok(Value::Object(environment))) = made.map(|stage| serde_json::to_value(&stage.environment)) {
        flatten("", &Value::Object(environment), &mut fields);
    }
    fields.retain(|_, value| !value.is_null());
    fields
}

fn all_figures(stage: Option<&StageRun>) -> IndexMap<String, Value> {
    let mut all: IndexMap<String, Value> = stage.map(|stage| stage.figures.clone()).unwrap_or_default();
    for (name, value) in stage.into_iter().flat_map(|stage| &stage.metrics) {
        all.entry(name.clone()).or_insert_with(|| (*value).into());
    }
    all
}

fn figure_changes(a: &IndexMap<String, Value>, b: &IndexMap<String, Value>) -> Vec<FigureChange> {
    let number = |of: &IndexMap<String, Value>, name: &str| figures(of).find(|(known, _)| *known == name).map(|f| f.1);
    let names: IndexSet<&String> = b.keys().chain(a.keys()).collect();
    let differing = names.into_iter().filter(|name| a.get(*name) != b.get(*name));
    let change = |name: &String| FigureChange {
        name: name.clone(),
        from: a.get(name).cloned(),
        to: b.get(name).cloned(),
        difference: number(a, name).zip(number(b, name)).map(|(a, b)| b - a),
    };
    differing.map(change).collect()
}

fn changes(a: &Fields, b: &Fields) -> Vec<Change> {
    let names: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let change = |name: &String| Change { field: name.clone(), from: a.get(name).cloned(), to: b.get(name).cloned() };
    names.into_iter().map(change).filter(|change| change.from != change.to).collect()
}

fn pair<T: PartialEq>(from: T, to: T) -> Option<Pair<T>> {
    (from != to).then_some(Pair { from, to })
}

#[cfg(test)]
mod tests;
