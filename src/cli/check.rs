//! `pipe check`: is the pipeline file right?

use clap::Args;
use serde_json::json;

use super::{CliError, Exit, Format, pipeline::PipelineArguments, pipeline::print, pipeline::print_json};
use crate::{config::Pipeline, graph::Graph};

/// Arguments of `pipe check`.
#[derive(Args)]
pub(super) struct Check {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Check {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        match self.check() {
            Ok(pipeline) if self.format == Format::Text => {
                let stages = crate::report::plural(pipeline.stages.len(), "stage");
                print(&format!("{}: {stages}, no problems\n", self.pipeline.file.display()))?;
            }
            Ok(pipeline) => {
                print_json(&json!({ "name": pipeline.name, "stages": pipeline.stages.len(), "problems": [] }))?
            }
            Err(CliError::Config(error)) if self.format == Format::Json => {
                print_json(&json!({ "problems": error.to_json() }))?;
                return Ok(Exit::Usage);
            }
            Err(error) => return Err(error),
        }
        Ok(Exit::Done)
    }

    fn check(&self) -> Result<Pipeline, CliError> {
        let pipeline = self.pipeline.load()?;
        Graph::new(&pipeline)?;
        Ok(pipeline)
    }
}
