//! `pipe plan`: what a run would do, and why.

use clap::Args;
use owo_colors::OwoColorize;

use super::{
    CliError, Exit, Format, pipeline::PipelineArguments, pipeline::print, pipeline::print_json,
    selection::SelectionArguments,
};
use crate::{
    cache::Home,
    config::Pipeline,
    plan::{self, Action},
    report, scheduler,
    selection::Request,
};

/// Arguments of `pipe plan`.
#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    pipeline: PipelineArguments,
    #[command(flatten)]
    selection: SelectionArguments,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Plan {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        show(&pipeline, &self.selection.request(&pipeline)?, self.format)
    }
}

/// Writes the plan of a request.
pub(super) fn show(pipeline: &Pipeline, request: &Request, format: Format) -> Result<Exit, CliError> {
    let plan = scheduler::plan(pipeline, &Home::locate(&pipeline.folder)?, request)?;
    match format {
        Format::Text => print(&text(&plan))?,
        Format::Json => print_json(&plan)?,
    }
    Ok(Exit::Done)
}

/// A line a stage; further reasons stand below the first.
fn text(plan: &plan::Plan) -> String {
    let name_width = plan.stages.iter().map(|stage| report::width(stage.stage.as_str())).max().unwrap_or(0);
    let mut text = String::new();
    let mut counts = [0usize; 3];
    for stage in &plan.stages {
        let (column, word, reasons) = match &stage.action {
            Action::Hit { .. } => (0, "hit".dimmed().to_string(), &[][..]),
            Action::Run { reasons } => (1, "run".yellow().to_string(), &reasons[..]),
            Action::Maybe { reasons } => (2, "run?".cyan().to_string(), &reasons[..]),
        };
        counts[column] += 1;
        let padding = " ".repeat(4 - ["hit", "run", "run?"][column].len());
        let mut lines = reasons.iter().map(|reason| report::printable(&reason.to_string()));
        let first = lines.next().unwrap_or_default();
        text += format!("{word}{padding}  {}  {first}", report::padded(stage.stage.as_str(), name_width)).trim_end();
        text.push('\n');
        for line in lines {
            text += &format!("{:width$}{line}\n", "", width = 4 + 2 + name_width + 2);
        }
    }
    let [hits, runs, maybe] = counts;
    text += &match (runs, maybe) {
        (0, 0) => format!("\nup to date: {hits} of {hits}\n"),
        (_, 0) => format!("\n{runs} to run, {hits} up to date\n"),
        _ => format!("\n{runs} to run, {maybe} only if what they take comes out different, {hits} up to date\n"),
    };
    text
}
