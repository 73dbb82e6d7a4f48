//! `pipe log`: what a stage said the last time it ran.

use std::fs;

use clap::Args;
use serde_json::json;

use super::{CliError, Exit, Format, pipeline::print, pipeline::print_json, recorded::Recorded};
use crate::runs::{Outcome, Runs, StageRun};

/// Arguments of `pipe log`.
#[derive(Args)]
pub(super) struct Log {
    /// The stage
    stage: String,
    #[command(flatten)]
    recorded: Recorded,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Log {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let found = |stage: &StageRun| stage.log.is_some() || stage.outcome == Outcome::Hit;
        let (home, mut run) = self.recorded.run_with(&self.stage, found)?;
        let stage = &mut run.stages[&self.stage];
        Runs::new(&home).complete_stage(stage);
        let path = stage.log.iter().fold(home.root().to_owned(), |root, log| root.join(log));
        let bytes = fs::read(&path).map_err(|error| {
            let help = "the log was removed from the cache; run the stage again for a new one".to_owned();
            CliError::usage(format!("{}: {error}", path.display()), help)
        })?;
        let text = String::from_utf8_lossy(&bytes);
        match self.format {
            Format::Text => print(&text)?,
            Format::Json => print_json(&json!({
                "stage": self.stage, "run": run.id, "outcome": stage.outcome, "figures": stage.figures,
                "error": stage.error, "path": path, "log": text,
            }))?,
        }
        Ok(Exit::Done)
    }
}
