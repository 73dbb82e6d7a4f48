//! `pipe plan`: what a run would do, and why.

use clap::Args;
use owo_colors::OwoColorize;
use serde::Serialize;

use super::{
    CliError, Exit, Format, count::size, pipeline::PipelineArguments, pipeline::print, pipeline::print_json,
    selection::SelectionArguments,
};
use crate::{
    cache::{Home, Store},
    config::Pipeline,
    foresight::{self, StageMemory, Told},
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
    /// Also say what the stages that train will take of a GPU's memory, and what for. Needs no GPU
    #[arg(long)]
    memory: bool,
    /// The memory of the GPU (`16GB`, `80GiB`): what is chosen to fit it, or that nothing does, which ends with exit code 3
    #[arg(long, value_name = "SIZE", value_parser = size, requires = "memory")]
    device_memory: Option<u64>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// A plan, and what its stages take of a GPU's memory.
#[derive(Serialize)]
struct WithMemory<'a> {
    #[serde(flatten)]
    plan: &'a plan::Plan,
    memory: &'a [StageMemory],
}

impl Plan {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        let request = self.selection.request(&pipeline)?;
        if !self.memory {
            return show(&pipeline, &request, self.format);
        }
        let home = Home::locate(&pipeline.folder)?;
        let (plan, made) = scheduler::plan_with_made(&pipeline, &home, &request)?;
        let scratch = tempfile::tempdir()
            .map_err(|source| CliError::Write { target: std::env::temp_dir().display().to_string(), source })?;
        let (store, run) = (Store::new(&home), self.pipeline.run_command());
        let memory = foresight::memory(&pipeline, &plan, (&made, &store), scratch.path(), (self.device_memory, &run));
        match self.format {
            Format::Text => print(&format!("{}{}", text(&plan), memory_text(&memory)))?,
            Format::Json => print_json(&WithMemory { plan: &plan, memory: &memory })?,
        }
        Ok(if memory.iter().any(StageMemory::is_refused) { Exit::Environment } else { Exit::Done })
    }
}

/// A table a stage.
fn memory_text(memory: &[StageMemory]) -> String {
    if memory.is_empty() {
        return "\nno stage of the plan takes a GPU's memory\n".to_owned();
    }
    let mut text = String::new();
    for StageMemory { stage, kind, gpus, told } in memory {
        text += &format!("\n{} ({kind})\n", stage.bold());
        let mut lines = match told {
            Told::Memory(report) => report.lines(),
            Told::Unknown(problem) => vec![problem.clone()],
        };
        if let Told::Memory(report) = told {
            if *gpus == 0 {
                lines.push("it asks for no GPU: this is what it would take on one".to_owned());
            }
            lines.extend(
                report.refusal.iter().flat_map(|refusal| {
                    [format!("does not fit: {}", refusal.message), format!("help: {}", refusal.hint)]
                }),
            );
        }
        lines.iter().for_each(|line| text += &format!("  {}\n", report::printable(line)));
    }
    text
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
