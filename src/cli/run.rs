//! `pipe run`: bring a pipeline's stages up to date.

use std::{num::NonZeroUsize, process::ExitCode};

use clap::Args;

use super::{CliError, Exit, Format, candidates, pipeline::PipelineArguments, pipeline::stages_named};
use crate::{
    cache::Home,
    report::{Human, JsonLines, Sink},
    scheduler::{self, Options},
};

/// Arguments of `pipe run`.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The stages to bring up to date, with all that they need; all stages if none is named
    #[arg(add = candidates::stages())]
    stages: Vec<String>,
    /// How many stages may run at a time
    #[arg(long, default_value = "1", value_name = "N")]
    jobs: NonZeroUsize,
    /// How to write what happens: text on standard error, or JSON lines on standard output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Run {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        let targets = stages_named(&pipeline, &self.stages)?;
        let home = Home::locate(&pipeline.folder)?;
        let options = Options { targets, jobs: self.jobs, again: again() };
        let mut sink: Box<dyn Sink> = match self.format {
            Format::Text => Box::new(Human::stderr()),
            Format::Json => Box::new(JsonLines::new(std::io::stdout())),
        };
        let summary = scheduler::run(&pipeline, &home, &options, sink.as_mut())?;
        Ok(Exit::Code(ExitCode::from(summary.outcome.exit_code())))
    }
}

/// The command that was typed, for saying how to go on.
fn again() -> String {
    let quote = |argument: String| {
        let plain = |c: char| c.is_alphanumeric() || "-_./=:,+@%".contains(c);
        if !argument.is_empty() && argument.chars().all(plain) {
            argument
        } else {
            format!("'{}'", argument.replace('\'', r"'\''"))
        }
    };
    std::iter::once("pipe".to_owned()).chain(std::env::args().skip(1).map(quote)).collect::<Vec<_>>().join(" ")
}
