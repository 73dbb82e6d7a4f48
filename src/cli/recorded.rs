//! The arguments that choose a recorded run, shared by the commands that look back.

use std::path::PathBuf;

use clap::Args;

use super::CliError;
use crate::{
    cache::Home,
    config, registry,
    runs::{RunRecord, Runs, StageRun},
};

/// Which pipeline's runs to look at.
#[derive(Args)]
pub(super) struct Recorded {
    /// Look at the runs of this pipeline file; without it, at the last run of any pipeline that has the stage
    #[arg(long, value_name = "FILE")]
    pipeline: Option<PathBuf>,
}

impl Recorded {
    /// The newest run in which `stage` is `wanted`, and the home it lies in.
    pub(super) fn run_with(
        &self,
        stage: &str,
        wanted: impl Fn(&StageRun) -> bool,
    ) -> Result<(Home, RunRecord), CliError> {
        let (home, name) = match &self.pipeline {
            Some(file) => {
                let pipeline = config::load(file, &[], registry::KINDS)?;
                (Home::locate(&pipeline.folder)?, Some(pipeline.name))
            }
            None => (Home::locate(&std::env::current_dir().unwrap_or_default())?, None),
        };
        let of_pipeline = |run: &RunRecord| name.as_ref().is_none_or(|name| *name == run.pipeline);
        let runs = Runs::new(&home);
        if let Some(run) = runs.latest(|run| of_pipeline(run) && run.stages.get(stage).is_some_and(&wanted)) {
            return Ok((home, run));
        }
        let place = home.root().display();
        Err(match runs.latest(of_pipeline) {
            None => CliError::usage(
                format!("no run is recorded in {place}"),
                "run the pipeline first; the cache of another folder is chosen by --pipeline FILE or $PIPE_HOME"
                    .to_owned(),
            ),
            Some(run) if run.stages.contains_key(stage) => CliError::usage(
                format!("no run in {place} has what you ask for of the stage `{stage}`"),
                "see how the last run ended, or run the pipeline again".to_owned(),
            ),
            Some(run) => {
                let known = run.stages.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                CliError::usage(
                    format!("no run in {place} has a stage `{stage}`"),
                    format!("the last one, of `{}`, has {known}", run.pipeline),
                )
            }
        })
    }
}
