//! Who needs an artifact that stays when the cache is cleaned up.

use std::collections::BTreeMap;

use pipe_stage::Digest;
use serde::Serialize;

use super::{Judged, RunId, Runs, Stays};
use crate::cache::{CacheError, Records};

/// One who needs an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Holder {
    /// A run that stays.
    Run {
        /// The run.
        run: RunId,
        /// Its pipeline.
        pipeline: String,
        /// The stage whose output it is there.
        stage: String,
        /// That output.
        output: String,
        /// Why the run stays.
        why: Stays,
    },
    /// A pipeline with a run that stays, one of whose stages had it last.
    Pipeline {
        /// The pipeline.
        pipeline: String,
        /// The stage.
        stage: String,
        /// Its output.
        output: String,
    },
}

impl Holder {
    /// The stage and the output that the artifact is.
    pub fn output(&self) -> (&str, &str) {
        match self {
            Self::Run { stage, output, .. } | Self::Pipeline { stage, output, .. } => (stage, output),
        }
    }
}

impl Judged {
    /// The artifacts that stay, with all who need them: runs first, the newest before the others.
    ///
    /// # Errors
    /// If what the stages of a pipeline last had cannot be read.
    pub fn holders(&self, runs: &Runs) -> Result<BTreeMap<Digest, Vec<Holder>>, CacheError> {
        let records = Records::new(&runs.home);
        let mut holders: BTreeMap<Digest, Vec<Holder>> = BTreeMap::new();
        let mut hold = |artifact: Digest, holder: Holder| {
            let by = holders.entry(artifact).or_default();
            if !by.contains(&holder) {
                by.push(holder);
            }
        };
        let mut pipelines = std::collections::BTreeSet::new();
        for (summary, why) in &self.stay {
            let Some(run) = runs.get(&summary.id) else { continue };
            for (stage, stage_run) in run.stages {
                // A stage that failed or was killed may have made its artifacts in another run since.
                let recorded = || Some(records.get(&stage_run.key?)?.outputs);
                let outputs = if stage_run.outputs.is_empty() { recorded() } else { Some(stage_run.outputs.clone()) };
                for (output, artifact) in outputs.unwrap_or_default() {
                    let (run, pipeline) = (summary.id.clone(), summary.pipeline.clone());
                    hold(artifact, Holder::Run { run, pipeline, stage: stage.clone(), output, why: *why });
                }
            }
            pipelines.insert(run.pipeline);
        }
        for pipeline in pipelines {
            for (stage, record) in records.all_last(&pipeline)? {
                for (output, artifact) in record.outputs {
                    hold(artifact, Holder::Pipeline { pipeline: pipeline.clone(), stage: stage.clone(), output });
                }
            }
        }
        Ok(holders)
    }
}
