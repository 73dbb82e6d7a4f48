//! `pipe run`: bring a pipeline's stages up to date.

use std::{num::NonZeroUsize, process::ExitCode};

use clap::Args;

use super::{
    CliError, Exit, Format, candidates,
    count::at_least_one,
    pipeline::{PipelineArguments, stages_named},
    plan,
    selection::SelectionArguments,
    typed::again,
};
use crate::{
    cache::Home,
    registry,
    report::{Human, JsonLines, Sink},
    scheduler::{self, Offer, Options},
};

/// Arguments of `pipe run`.
#[derive(Args)]
pub(super) struct Run {
    #[command(flatten)]
    pipeline: PipelineArguments,
    #[command(flatten)]
    selection: SelectionArguments,
    /// Take the newest version of what these stages name elsewhere (a branch on a hub, a folder of a bucket), and keep
    /// in pipe.lock which that is
    #[arg(long, value_name = "STAGE", num_args = 1.., conflicts_with = "dry_run", add = candidates::stages())]
    refresh: Vec<String>,
    /// How many stages may run at a time. Default: as many as there are CPUs for, of which a stage that does not say
    /// how many it uses (`resources.cpus`) counts for one; with --jobs, it counts for none
    #[arg(long, short, value_name = "N", value_parser = at_least_one)]
    jobs: Option<NonZeroUsize>,
    /// What stages may use together. Default: what the machine has, as far as this process may use it
    #[arg(long, value_name = "cpus=N,memory=SIZE,gpus=N")]
    resources: Option<Offer>,
    /// After a failure, go on with the stages that do not need what failed
    #[arg(long, short)]
    keep_going: bool,
    /// Only say what would be done, and why: the same as `pipe plan`
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// How to write what happens: text on standard error, or JSON lines on standard output
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Run {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        let request = self.selection.request(&pipeline)?;
        if self.dry_run {
            return plan::show(&pipeline, &request, self.format);
        }
        let home = Home::locate(&pipeline.folder)?;
        let Self { jobs, resources, keep_going, .. } = self;
        let resources = resources.unwrap_or_default();
        let refresh = stages_named(&pipeline, &self.refresh)?;
        let options =
            Options { request, refresh, runners: registry::runners(), jobs, resources, keep_going, again: again() };
        let mut sink: Box<dyn Sink> = match self.format {
            Format::Text => Box::new(Human::stderr()),
            Format::Json => Box::new(JsonLines::new(std::io::stdout())),
        };
        let summary = scheduler::run(&pipeline, &home, &options, sink.as_mut())?;
        Ok(Exit::Code(ExitCode::from(summary.outcome.exit_code())))
    }
}
