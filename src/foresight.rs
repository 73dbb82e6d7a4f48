//! What stages will take of a GPU's memory, told before they run: each kind works it out from its configuration and from
//! what is there of its inputs.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use pipe_stage::{Digest, Foreseen, MemoryQuery, MemoryReport, UserFile};
use serde::Serialize;

use crate::{
    cache::Store,
    config::{InputRef, Pipeline, StageName, StageSpec},
    plan::Plan,
};

/// The artifacts that are there, by stage and name of the output.
pub type Made = HashMap<StageName, BTreeMap<String, Digest>>;

/// What is told of one stage.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct StageMemory {
    /// The stage.
    pub stage: StageName,
    /// Its kind.
    pub kind: &'static str,
    /// How many GPUs it asks for.
    pub gpus: usize,
    /// What it takes.
    #[serde(flatten)]
    pub told: Told,
}

/// What a kind answered.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// What the stage takes.
    Memory(Box<MemoryReport>),
    /// What is not known yet.
    Unknown(String),
}

impl StageMemory {
    /// Whether the stage will refuse to begin.
    pub fn is_refused(&self) -> bool {
        matches!(&self.told, Told::Memory(report) if report.refusal.is_some())
    }
}

/// Asks every stage of a plan whose kind takes a GPU's memory. `scratch` is an empty folder for views of artifacts; `run` is
/// the command that runs the pipeline.
pub fn memory(
    pipeline: &Pipeline,
    plan: &Plan,
    (made, store): (&Made, &Store),
    scratch: &Path,
    (device_bytes, run): (Option<u64>, &str),
) -> Vec<StageMemory> {
    let ask = |spec: &StageSpec| {
        let view = |artifact: &Digest| {
            let folder = scratch.join(artifact.to_string());
            (folder.exists() || store.materialise(artifact, &folder).is_ok()).then_some(folder)
        };
        let inputs = spec.inputs.iter().filter_map(|(name, taken)| {
            let first = taken.first()?;
            let mut foreseen = Foreseen { stage: first.stage.as_str().to_owned(), ..Foreseen::default() };
            look(pipeline, made, first, &view, &mut foreseen);
            Some((name.clone(), foreseen))
        });
        let query = MemoryQuery { device_bytes, run: run.to_owned(), inputs: inputs.collect() };
        let told = match spec.declaration.memory(&spec.config, &query)? {
            Ok(report) => Told::Memory(Box::new(report)),
            Err(problem) => Told::Unknown(problem),
        };
        let (kind, gpus) = (spec.declaration.kind, spec.resources.gpus);
        Some(StageMemory { stage: spec.name.clone(), kind, gpus, told })
    };
    plan.stages.iter().filter_map(|stage| ask(pipeline.stages.get(&stage.stage)?)).collect()
}

/// Goes from stage to stage along their first inputs, to an artifact that is there or to where the chain begins.
fn look(
    pipeline: &Pipeline,
    made: &Made,
    from: &InputRef,
    view: &dyn Fn(&Digest) -> Option<std::path::PathBuf>,
    foreseen: &mut Foreseen,
) {
    let mut at = from;
    // The graph has no circle.
    while let Some(spec) = pipeline.stages.get(&at.stage) {
        foreseen.folder = made.get(&at.stage).and_then(|outputs| outputs.get(&at.output)).and_then(view);
        if foreseen.folder.is_some() {
            return;
        }
        foreseen.through.push((spec.declaration.kind, spec.config.clone()));
        foreseen.model = spec.declaration.model(&spec.config);
        if foreseen.model.is_some() {
            return;
        }
        let first = spec.declaration.inputs.iter().find_map(|port| spec.inputs.get(port.name)?.first());
        let Some(next) = first else {
            // A folder of the user's may be all that the chain begins with.
            if let [UserFile { path, .. }] = &spec.user_files[..] {
                foreseen.folder = Some(pipeline.folder.join(path)).filter(|folder| folder.is_dir());
            }
            return;
        };
        at = next;
    }
}
