//! What a run would do, and why: each stage is a hit, or runs for reasons in words.
//!
//! Pure: what is on disk is asked through [`Lookup`]. The scheduler asks [`decide`] stage by stage, as the digests
//! become known; [`Plan::new`] looks ahead as far as they are known without running anything.

mod difference;
mod explain;
mod external;
mod folder;
mod lookup;
mod reason;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use pipe_stage::{Digest, Form, Output};
use serde::Serialize;

use crate::{
    cache::{ActionRecord, Flaw, Identity, Key, Manifest},
    config::{self, Pipeline, StageName, StageSpec},
    graph::Graph,
    runs::{Story, Unsuccessful},
    selection::Selection,
};

pub(crate) use difference::{Differing, differing};
pub use explain::{Cause, Explanation, Field, Ingredients, Last, Source};
pub use external::{External, Externals};
pub use folder::{ChangeKind, FileChange, FolderChange};
pub use lookup::CacheLookup;
pub use reason::Reason;
pub(crate) use reason::{Brief, short_pin};

/// What a plan asks of the cache.
pub trait Lookup {
    /// The record of a key.
    fn record(&self, key: &Key) -> Option<ActionRecord>;
    /// The record that a stage had when it was last brought up to date. Only for saying what changed.
    fn last(&self, stage: &StageName) -> Option<ActionRecord>;
    /// The outputs of a stage, if it had this key when it was last brought up to date and they are known to be whole
    /// without reading them. `None` only means that one has to look.
    fn known(&self, _stage: &StageName, _key: &Key) -> Option<BTreeMap<String, Digest>> {
        None
    }
    /// Whether an artifact is whole.
    ///
    /// # Errors
    /// What is wrong with it.
    fn verify(&self, artifact: &Digest) -> Result<(), Flaw>;

    // What follows is only for words: without it a plan decides the same and says less.

    /// The last attempt at a stage, if it made nothing.
    fn unsuccessful(&self, _stage: &StageName) -> Option<Unsuccessful> {
        None
    }
    /// The files of a folder of the user's that had this digest when it was looked at.
    fn folder(&self, _digest: &Digest) -> Option<Manifest> {
        None
    }
    /// How the artifacts of a record came to be.
    fn story(&self, _record: &ActionRecord) -> Option<Story> {
        None
    }
    /// The key that each stage had in the run that made the artifacts of a record, as far as that is known.
    fn keys_beside(&self, _record: &ActionRecord) -> HashMap<String, Key> {
        HashMap::new()
    }
}

/// What a run would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Plan {
    /// Each stage after those that it takes from.
    pub stages: Vec<StagePlan>,
}

/// What a run would do with one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StagePlan {
    /// The stage.
    pub stage: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// Its key; `None` while an input is still to be made.
    pub key: Option<Key>,
    /// What is to be done.
    #[serde(flatten)]
    pub action: Action,
}

/// What is to be done with a stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// Nothing: the artifacts are there.
    Hit {
        /// They, by the name of the output.
        outputs: BTreeMap<String, Digest>,
    },
    /// It runs.
    Run {
        /// Why; at least one.
        reasons: Vec<Reason>,
    },
    /// A stage before it runs. If that makes what it made the last time, this one is a hit; otherwise it runs.
    Maybe {
        /// The stages before it.
        reasons: Vec<Reason>,
    },
}

/// A stage with all its inputs known: what the scheduler acts on.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// All that goes into it.
    pub identity: Identity,
    /// The key of that.
    pub key: Key,
    /// [`Action::Hit`] or [`Action::Run`].
    pub action: Action,
    /// Whether it is a hit by [`Lookup::known`].
    pub known: bool,
}

impl Plan {
    /// Plans the stages of `selection`, which holds all that they need or what that has made.
    pub fn new(
        pipeline: &Pipeline,
        graph: &Graph,
        selection: &Selection,
        externals: &Externals,
        lookup: &impl Lookup,
    ) -> Self {
        let mut stages = Vec::with_capacity(selection.stages.len());
        let mut made: HashMap<&StageName, BTreeMap<String, Digest>> =
            selection.given.iter().map(|(stage, outputs)| (stage, outputs.clone())).collect();
        for name in graph.order().filter(|name| selection.stages.contains(*name)) {
            let Some(spec) = pipeline.stages.get(name) else { continue };
            let (inputs, waits_for) = resolve(spec, &made);
            let external = externals.of(name);
            let (key, action) = if !external.unpinned.is_empty() {
                (None, unpinned(external, waits_for))
            } else if waits_for.is_empty() {
                let Decision { key, action, .. } = decide(spec, inputs, external, lookup);
                (Some(key), action)
            } else {
                (None, look_ahead(spec, inputs, waits_for, external, lookup))
            };
            let action = if selection.forced.contains(name) { action.forced() } else { action };
            if let Action::Hit { outputs } = &action {
                made.insert(name, outputs.clone());
            }
            stages.push(StagePlan { stage: name.clone(), kind: spec.declaration.kind, key, action });
        }
        Self { stages }
    }

    /// Whether every stage is a hit.
    pub fn is_up_to_date(&self) -> bool {
        self.stages.iter().all(|stage| matches!(stage.action, Action::Hit { .. }))
    }
}

impl Action {
    /// The same for a stage that is to run although nothing changed.
    #[must_use]
    pub fn forced(self) -> Self {
        match self {
            Self::Hit { .. } => Self::Run { reasons: vec![Reason::Forced] },
            Self::Maybe { reasons } => Self::Run { reasons: std::iter::once(Reason::Forced).chain(reasons).collect() },
            run @ Self::Run { .. } => run,
        }
    }
}

/// Decides on a stage whose inputs are there: by input name, in the order of the pipeline.
pub fn decide(
    spec: &StageSpec,
    inputs: BTreeMap<String, Vec<Digest>>,
    external: &External,
    lookup: &impl Lookup,
) -> Decision {
    let identity = identify(spec, inputs, external);
    let key = identity.key();
    if let Some(outputs) = lookup.known(&spec.name, &key) {
        return Decision { identity, key, action: Action::Hit { outputs }, known: true };
    }
    let action = match lookup.record(&key) {
        Some(record) => hit_unless_damaged(spec, record, lookup),
        None => Action::Run { reasons: without_record(spec, &key, &identity, lookup) },
    };
    Decision { identity, key, action, known: false }
}

/// Why a stage runs whose key has no record.
fn without_record(spec: &StageSpec, key: &Key, identity: &Identity, lookup: &impl Lookup) -> Vec<Reason> {
    let attempt = lookup.unsuccessful(&spec.name);
    let Some(last) = lookup.last(&spec.name) else { return vec![reason::without_record(attempt)] };
    let mut reasons = reason::differences(spec, &last.identity, identity, lookup);
    // It was tried with just this, and so this is why it is not there.
    reasons.extend(attempt.filter(|attempt| attempt.key == *key).map(Reason::LastRun));
    reasons
}

/// All that goes into a stage.
fn identify(spec: &StageSpec, inputs: BTreeMap<String, Vec<Digest>>, external: &External) -> Identity {
    let mut config = config::canonical(&spec.config, spec.declaration);
    if let Some(fields) = config.as_object_mut() {
        // The content stands in the key, and where it lies does not.
        fields.retain(|field, _| !external.files.contains_key(field));
        // The same artifact is another input where it stands as a file: `with` has no field of this name.
        let files = spec.inputs.iter().filter(|(_, taken)| taken.iter().any(|taken| taken.form != Form::Folder));
        fields.extend(files.map(|(input, _)| (format!("inputs.{input}"), "file".into())));
    }
    Identity {
        kind: spec.declaration.kind.to_owned(),
        version: spec.declaration.version,
        config,
        files: external.files.clone(),
        pins: external.pins.clone(),
        environment: external.environment.clone(),
        inputs,
    }
}

fn hit_unless_damaged(spec: &StageSpec, record: ActionRecord, lookup: &impl Lookup) -> Action {
    let flaw = |output: &Output| {
        let output = output.name.clone();
        let Some(artifact) = record.outputs.get(&output) else {
            return Some(Reason::OutputMissing { output, file: None });
        };
        match lookup.verify(artifact) {
            Ok(()) => None,
            Err(Flaw::Missing { file }) => Some(Reason::OutputMissing { output, file }),
            Err(Flaw::Damaged { file, why }) => Some(Reason::OutputDamaged { output, file, why }),
        }
    };
    let reasons: Vec<Reason> = spec.outputs.iter().filter_map(flaw).collect();
    if reasons.is_empty() { Action::Hit { outputs: record.outputs } } else { Action::Run { reasons } }
}

/// The artifacts of the inputs that are there, and the stages that still have to make the others.
fn resolve(
    spec: &StageSpec,
    made: &HashMap<&StageName, BTreeMap<String, Digest>>,
) -> (BTreeMap<String, Vec<Digest>>, BTreeSet<StageName>) {
    let mut waits_for = BTreeSet::new();
    let mut inputs = BTreeMap::new();
    for (port, sources) in &spec.inputs {
        let mut artifacts = Vec::new();
        for source in sources {
            match made.get(&source.stage).and_then(|outputs| outputs.get(&source.output)) {
                Some(artifact) => artifacts.push(*artifact),
                None => {
                    waits_for.insert(source.stage.clone());
                }
            }
        }
        if artifacts.len() == sources.len() {
            inputs.insert(port.clone(), artifacts);
        }
    }
    (inputs, waits_for)
}

/// What can be said of a stage before it is known what the names in it stand for.
fn unpinned(external: &External, waits_for: BTreeSet<StageName>) -> Action {
    let unpinned = external.unpinned.iter().map(|reference| Reason::Unpinned { name: reference.name.clone() });
    let upstream = waits_for.into_iter().map(|stage| Reason::Upstream { stage });
    Action::Run { reasons: unpinned.chain(upstream).collect() }
}

/// What can be said of a stage while some of its inputs are still to be made. A stage that changed itself will run,
/// unless the user went back to a configuration that the cache has seen with just these inputs.
fn look_ahead(
    spec: &StageSpec,
    inputs: BTreeMap<String, Vec<Digest>>,
    waits_for: BTreeSet<StageName>,
    external: &External,
    lookup: &impl Lookup,
) -> Action {
    let upstream = waits_for.into_iter().map(|stage| Reason::Upstream { stage });
    let Some(mut last) = lookup.last(&spec.name).map(|record| record.identity) else {
        let reason = reason::without_record(lookup.unsuccessful(&spec.name));
        return Action::Run { reasons: std::iter::once(reason).chain(upstream).collect() };
    };
    let identity = identify(spec, inputs, external);
    let unknown = |port: &String| spec.inputs.contains_key(port) && !identity.inputs.contains_key(port);
    last.inputs.retain(|port, _| !unknown(port));
    if last == identity {
        Action::Maybe { reasons: upstream.collect() }
    } else {
        Action::Run {
            reasons: reason::differences(spec, &last, &identity, lookup).into_iter().chain(upstream).collect(),
        }
    }
}

#[cfg(test)]
mod tests;
