//! `pipe schema`: what may stand in a pipeline file, for editors and for people.

use clap::Args;

use super::{CliError, Exit, pipeline::print_json};
use crate::{config, registry};

/// Arguments of `pipe schema`.
#[derive(Args)]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        print_json(&config::schema(registry::KINDS))?;
        Ok(Exit::Done)
    }
}
