//! One stage explained: what goes into it, what is to be done with it, and why, back to the root causes.
//!
//! Works with the same decisions as [`Plan`], and adds nothing to them but where they come from.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};

use pipe_stage::Digest;
use serde::Serialize;
use serde_json::Value;

use super::{Action, Externals, Lookup, Plan, Reason, StagePlan, identify, reason, resolve};
use crate::{
    cache::{ActionRecord, FileIdentity, Key},
    config::{self, Pipeline, StageName, StageSpec},
    graph::Graph,
    runs::{Story, Unsuccessful},
    selection::Selection,
};

/// A chain of causes is followed until so many are found.
const CAUSES: usize = 20;

/// All that there is to say of a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The name of the pipeline.
    pub pipeline: String,
    /// The stage.
    pub stage: StageName,
    /// Its key; `None` while an input is still to be made.
    pub key: Option<Key>,
    /// What is to be done, and why.
    #[serde(flatten)]
    pub action: Action,
    /// Why the stages before it are among the reasons, the nearest first.
    pub causes: Vec<Cause>,
    /// What goes into it.
    pub ingredients: Ingredients,
    /// The key that it had when it was last up to date, and how that artifact came to be.
    pub last: Option<Last>,
    /// The last attempt at it, if that made nothing.
    pub last_attempt: Option<Unsuccessful>,
}

/// Why a stage on the way to the explained one runs, or made something else than before.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Cause {
    /// The stage.
    pub stage: StageName,
    /// The run that made what is new; `None` if the stage is still to run.
    pub run: Option<crate::runs::RunId>,
    /// Why, in words.
    pub reasons: Vec<String>,
}

/// What goes into a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Ingredients {
    /// Its kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// The configuration that counts, dots between the parts of a name.
    pub config: Vec<Field>,
    /// The fields that only guide the execution: they stand in no key.
    pub execution_only: Vec<Field>,
    /// The user's files by the field that names them.
    pub files: BTreeMap<String, FileIdentity>,
    /// What the names of things elsewhere stand for, by the field that holds them.
    pub pins: BTreeMap<String, String>,
    /// The declared environment variables, and whether each is set.
    pub environment: BTreeMap<String, bool>,
    /// The artifacts that it takes.
    pub inputs: Vec<Source>,
}

/// A field of the configuration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Field {
    /// Its name.
    pub field: String,
    /// Its value.
    pub value: Value,
}

/// An artifact that a stage takes.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Source {
    /// The input.
    pub input: String,
    /// The stage that makes it.
    pub stage: StageName,
    /// Which of its outputs.
    pub output: String,
    /// The artifact; `None` while it is still to be made.
    pub artifact: Option<Digest>,
    /// How it came to be.
    pub made: Option<Story>,
}

/// What a stage was when it was last up to date.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Last {
    /// Its key.
    pub key: Key,
    /// Its artifacts by output.
    pub outputs: BTreeMap<String, Digest>,
    /// How they came to be.
    pub made: Option<Story>,
}

impl Explanation {
    /// Explains `stage` of the pipeline. `None` if there is no such stage.
    pub fn new(
        pipeline: &Pipeline,
        graph: &Graph,
        externals: &Externals,
        lookup: &impl Lookup,
        stage: &StageName,
    ) -> Option<Self> {
        let spec = pipeline.stages.get(stage)?;
        let selection = Selection { stages: graph.needed_for([stage]), ..Selection::default() };
        let plan = Plan::new(pipeline, graph, &selection, externals, lookup);
        let last = lookup.last(stage);
        let planned: HashMap<&StageName, &StagePlan> = plan.stages.iter().map(|stage| (&stage.stage, stage)).collect();
        let StagePlan { key, action, .. } = (*planned.get(stage)?).clone();
        let way = Way { pipeline, externals, lookup, planned };
        Some(Self {
            pipeline: pipeline.name.clone(),
            stage: stage.clone(),
            key,
            causes: way.causes(&action, last.as_ref()),
            action,
            ingredients: way.ingredients(spec),
            last: last.map(|record| Last { key: record.key, made: lookup.story(&record), outputs: record.outputs }),
            last_attempt: lookup.unsuccessful(stage),
        })
    }
}

/// Between the explained stage and those before it.
struct Way<'a, L> {
    pipeline: &'a Pipeline,
    externals: &'a Externals,
    lookup: &'a L,
    planned: HashMap<&'a StageName, &'a StagePlan>,
}

impl<L: Lookup> Way<'_, L> {
    fn outputs(&self, stage: &StageName) -> Option<&BTreeMap<String, Digest>> {
        match &self.planned.get(stage)?.action {
            Action::Hit { outputs } => Some(outputs),
            _ => None,
        }
    }

    /// The record of a stage that is a hit.
    fn record(&self, stage: &StageName) -> Option<ActionRecord> {
        self.lookup.record(&self.planned.get(stage)?.key?)
    }

    fn ingredients(&self, spec: &StageSpec) -> Ingredients {
        let external = self.externals.of(&spec.name);
        let made = spec
            .inputs
            .values()
            .flatten()
            .filter_map(|input| Some((&input.stage, self.outputs(&input.stage)?.clone())));
        let (inputs, _) = resolve(spec, &made.collect());
        let identity = identify(spec, inputs, external);
        let mut guides = Vec::new();
        for field in config::execution_only_fields(spec.declaration) {
            let value = field.split('.').try_fold(&spec.config, |value, part| value.get(part));
            guides.extend(value.map(|value| Field { field, value: value.clone() }));
        }
        let mut config = Vec::new();
        flatten("", &identity.config, &mut config);
        let source = |(input, source): (&String, &config::InputRef)| Source {
            input: input.clone(),
            stage: source.stage.clone(),
            output: source.output.clone(),
            artifact: self.outputs(&source.stage).and_then(|outputs| outputs.get(&source.output).copied()),
            made: self.outputs(&source.stage).and_then(|_| self.lookup.story(&self.record(&source.stage)?)),
        };
        let inputs = spec.inputs.iter().flat_map(|(input, sources)| sources.iter().map(move |source| (input, source)));
        Ingredients {
            kind: identity.kind,
            version: identity.version,
            config,
            execution_only: guides,
            files: identity.files,
            pins: identity.pins,
            environment: identity.environment.into_iter().map(|(name, value)| (name, value.is_some())).collect(),
            inputs: inputs.map(source).collect(),
        }
    }

    /// Follows the reasons of the explained stage to the stages that gave them, and on from there.
    fn causes(&self, action: &Action, last: Option<&ActionRecord>) -> Vec<Cause> {
        let mut open: VecDeque<StageName> = stages(action).cloned().collect();
        if open.is_empty() {
            return Vec::new();
        }
        // What the stages before it were when its last artifact was made.
        let before = last.map(|record| self.lookup.keys_beside(record)).unwrap_or_default();
        let mut seen: HashSet<StageName> = open.iter().cloned().collect();
        let mut causes = Vec::new();
        while let Some(stage) = open.pop_front() {
            let Some(planned) = self.planned.get(&stage) else { continue };
            let (cause, further) = match &planned.action {
                Action::Hit { .. } => self.past_cause(&stage, before.get(stage.as_str())),
                Action::Run { reasons } | Action::Maybe { reasons } => {
                    let own = reasons.iter().filter(|reason| !matches!(reason, Reason::Upstream { .. }));
                    let reasons = own.map(Reason::to_string).collect();
                    (Cause { stage, run: None, reasons }, stages(&planned.action).cloned().collect())
                }
            };
            open.extend(further.into_iter().filter(|stage| seen.insert(stage.clone())));
            if !cause.reasons.is_empty() {
                causes.push(cause);
            }
            if causes.len() == CAUSES {
                break;
            }
        }
        causes
    }

    /// Why a stage that is a hit now made something else than it had made `before`.
    fn past_cause(&self, stage: &StageName, before: Option<&Key>) -> (Cause, Vec<StageName>) {
        let record = self.record(stage);
        let story = record.as_ref().and_then(|record| self.lookup.story(record));
        let mut cause =
            Cause { stage: stage.clone(), run: story.as_ref().map(|story| story.run.clone()), reasons: Vec::new() };
        let then = before.and_then(|key| self.lookup.record(key));
        let (Some(spec), Some(now), Some(then)) = (self.pipeline.stages.get(stage), record, then) else {
            cause.reasons = story.map(|story| story.reasons).unwrap_or_default();
            return (cause, Vec::new());
        };
        if then.key == now.key {
            // It was run again, and what it makes is not the same every time.
            cause.reasons = story.map(|story| story.reasons).unwrap_or_default();
            return (cause, Vec::new());
        }
        let reasons = reason::differences(spec, &then.identity, &now.identity, self.lookup);
        cause.reasons = reasons.iter().map(Reason::to_string).collect();
        (cause, reasons.iter().flat_map(Reason::stages).cloned().collect())
    }
}

/// The stages among the reasons of an action.
fn stages(action: &Action) -> impl Iterator<Item = &StageName> {
    let reasons = match action {
        Action::Hit { .. } => &[][..],
        Action::Run { reasons } | Action::Maybe { reasons } => reasons,
    };
    reasons.iter().flat_map(Reason::stages)
}

/// The values of a configuration one by one. An empty mapping is a value.
fn flatten(path: &str, value: &Value, fields: &mut Vec<Field>) {
    match value {
        Value::Object(inner) if !inner.is_empty() => {
            for (name, value) in inner {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(&path, value, fields);
            }
        }
        _ if path.is_empty() => {}
        value => fields.push(Field { field: path.to_owned(), value: value.clone() }),
    }
}

#[cfg(test)]
mod tests;
