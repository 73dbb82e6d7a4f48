//! `pipe runs show`: one run in full.

use clap::Args;
use owo_colors::{OwoColorize, Style};
use pipe_stage::Program;

use super::{
    CliError, Exit, Format, Scope, candidates, figure, list, outcome,
    pipeline::{print, print_json},
    seconds, status,
    table::{Cell, Table},
};
use crate::{
    registry, report,
    runs::{Machine, RunRecord, StageRun},
};

/// As many figures fit on the line of a stage.
const FIGURES: usize = 4;

/// Arguments of `pipe runs show`.
#[derive(Args)]
pub(super) struct Show {
    /// The run: `last`, `last~1`, an id or the beginning of one
    #[arg(default_value = "last", add = candidates::runs())]
    run: String,
    #[command(flatten)]
    scope: Scope,
    /// Say of each stage why it ran
    #[arg(long)]
    reasons: bool,
    /// Print the pipeline that the run meant, as YAML with nothing left to fill in, and nothing else
    #[arg(long, conflicts_with_all = ["reasons", "format"])]
    resolved: bool,
    /// How to write the run
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Show {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let scoped = self.scope.open()?;
        let mut run = scoped.choose(&self.run)?;
        if self.resolved {
            let yaml = scoped.runs.resolved(&run.resolved).ok_or_else(|| {
                let message = format!("the resolved pipeline of the run {} is gone from the cache, or damaged", run.id);
                CliError::usage(message, "run the pipeline again to record it".to_owned())
            })?;
            print(&yaml)?;
            return Ok(Exit::Done);
        }
        scoped.runs.complete(&mut run);
        match self.format {
            Format::Json => print_json(&run)?,
            Format::Text => print(&text(&run, self.reasons))?,
        }
        Ok(Exit::Done)
    }
}

fn text(run: &RunRecord, reasons: bool) -> String {
    let (word, style) = status(run.status);
    let took = match run.ended {
        Some(_) => format!(" in {}", seconds(run.duration_seconds)),
        None => String::new(),
    };
    let mut about = Table::default();
    let mut tell = |name: &str, value: String| {
        if !value.is_empty() {
            about.row([Cell::from(name).style(Style::new().dimmed()), report::printable(&value).into()]);
        }
    };
    tell("pipeline", format!("{} ({})", run.pipeline, run.file.display()));
    tell("started", report::moment(run.started));
    tell("ended", run.ended.map(report::moment).unwrap_or_default());
    tell("set", run.set.join("  "));
    tell("asked for", run.asked.to_string());
    tell("stages", list::counts(run.counts()));
    tell("pipe", run.version.clone());
    tell("machine", machine(&run.machine));

    let mut text = format!("run {}: {}{took}\n{}\n", run.id, word.style(style), about.to_text(0));
    // In a terminal, as many figures as fit.
    let table = Table::that_fits((0..=FIGURES).rev().map(|figures| stages(run, figures)));
    // The table has a line a stage, and what is to be said of a stage follows its line.
    for (line, stage) in table.to_text(0).lines().zip(run.stages.values()) {
        text += line;
        text.push('\n');
        let mut below = |what: String| text += &format!("         {what}\n");
        if reasons {
            stage
                .reasons
                .iter()
                .for_each(|reason| below(format!("{} {}", "because".dimmed(), report::printable(reason))));
        }
        if stage.attempts.len() > 1 {
            below(format!("{} {} attempts", "after".dimmed(), stage.attempts.len()));
        }
        for (depth, error) in stage.error.iter().enumerate() {
            let lead = if depth == 0 { "error:".red().to_string() } else { "  because:".to_owned() };
            below(format!("{lead} {}", report::printable(error)));
        }
    }
    text
}

fn stages(run: &RunRecord, most: usize) -> Table {
    let mut table = Table::default();
    for (name, stage) in &run.stages {
        let (word, style) = outcome(stage.outcome, run.status);
        let ran = stage.duration_seconds > 0.0;
        let cells: [Cell; 5] = [
            Cell::from(word).style(style),
            name.clone().into(),
            Cell::from(if ran { seconds(stage.duration_seconds) } else { String::new() }).right(),
            stage.key.map(|key| key.short()).unwrap_or_default().into(),
            figures(stage, most).into(),
        ];
        table.row(cells);
    }
    table
}

fn machine(machine: &Machine) -> String {
    let Machine { os, arch, cpu, cpus, memory_bytes, gpus } = machine;
    let cpu = cpu.as_ref().map(|cpu| format!(" ({cpu})")).unwrap_or_default();
    let mut parts = vec![
        format!("{os} {arch}"),
        format!("{}{cpu}", report::plural(*cpus, "CPU")),
        format!("{} memory", report::bytes(*memory_bytes)),
    ];
    parts.extend(gpus.iter().cloned());
    parts.join(", ")
}

/// What a stage ran on, where that matters; its first figures, then its measurements.
fn figures(stage: &StageRun, most: usize) -> String {
    let computes = registry::KINDS.iter().any(|kind| kind.kind == stage.kind && kind.program == Program::PipeTorch);
    let device = stage.environment.device.iter().filter(|device| computes || *device != "cpu");
    let device = device.map(|device| format!("on {}", report::printable(device)));
    let figure = |name: &str, value: &serde_json::Value| format!("{name} {}", figure(name, value));
    let figures = stage.figures.iter().map(|(name, value)| figure(name, value));
    let new = |name: &&String| !stage.figures.contains_key(*name);
    let metrics = stage.metrics.keys().filter(new).map(|name| figure(name, &stage.metrics[name].into()));
    device.chain(figures.chain(metrics).take(most)).collect::<Vec<_>>().join(" · ")
}
