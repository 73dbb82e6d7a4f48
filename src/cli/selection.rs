//! The arguments that choose stages, shared by `run` and `plan`, which therefore plans just what would run.

use clap::Args;

use super::{CliError, candidates, pipeline::stages_named};
use crate::{config::Pipeline, selection::Request};

/// Which stages a command is about.
#[derive(Args)]
pub(super) struct SelectionArguments {
    /// The stages to bring up to date, with all that they need; all stages if none is named
    #[arg(value_name = "STAGE", add = candidates::stages())]
    stages: Vec<String>,
    /// Stop after these stages: the same as naming them
    #[arg(long, value_name = "STAGE", num_args = 1.., add = candidates::stages())]
    until: Vec<String>,
    /// Bring just these stages up to date, from what the stages before them have made
    #[arg(long, value_name = "STAGE", num_args = 1.., conflicts_with_all = ["until", "stages"], add = candidates::stages())]
    only: Vec<String>,
    /// Run these stages and all that depends on them, although nothing changed
    #[arg(long, value_name = "STAGE", num_args = 1.., add = candidates::stages())]
    from: Vec<String>,
    /// Run these stages although nothing changed; what depends on them runs if their output differs
    #[arg(long, value_name = "STAGE", num_args = 1.., add = candidates::stages())]
    force: Vec<String>,
    /// Run every stage although nothing changed
    #[arg(long)]
    force_all: bool,
}

impl SelectionArguments {
    /// The stages that are meant.
    pub(super) fn request(&self, pipeline: &Pipeline) -> Result<Request, CliError> {
        let named = |names: &[String]| stages_named(pipeline, names);
        let mut targets = named(&self.stages)?;
        targets.extend(named(&self.until)?);
        Ok(Request {
            targets,
            only: named(&self.only)?,
            from: named(&self.from)?,
            force: named(&self.force)?,
            force_all: self.force_all,
        })
    }
}
