//! `pipe plan`: what a run would do, and why.

use clap::Args;
use owo_colors::OwoColorize;

use super::{
    CliError, Exit, Format, candidates, pipeline::PipelineArguments, pipeline::print, pipeline::print_json,
    pipeline::stages_named,
};
use crate::{
    cache::{Home, UserFiles},
    graph::Graph,
    plan::{self, Action, CacheLookup, Externals},
};

/// Arguments of `pipe plan`.
#[derive(Args)]
pub(super) struct Plan {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// The stages to plan, with all that they need; all stages if none is named
    #[arg(add = candidates::stages())]
    stages: Vec<String>,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Plan {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        let graph = Graph::new(&pipeline)?;
        let targets = stages_named(&pipeline, &self.stages)?;
        let all = targets.is_empty().then(|| pipeline.stages.keys());
        let selected = graph.needed_for(all.into_iter().flatten().chain(&targets));
        let home = Home::locate(&pipeline.folder)?;
        let externals =
            Externals::identify(&pipeline, &selected, &UserFiles::new(&home), |name| std::env::var_os(name))?;
        let plan = plan::Plan::new(&pipeline, &graph, &selected, &externals, &CacheLookup::new(&home, &pipeline.name));
        match self.format {
            Format::Text => print(&text(&plan))?,
            Format::Json => print_json(&plan)?,
        }
        Ok(Exit::Done)
    }
}

/// A line a stage; further reasons stand below the first.
fn text(plan: &plan::Plan) -> String {
    let name_width = plan.stages.iter().map(|stage| stage.stage.as_str().len()).max().unwrap_or(0);
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
        let mut lines = reasons.iter().map(ToString::to_string);
        let first = lines.next().unwrap_or_default();
        text += format!("{word}{padding}  {:name_width$}  {first}", stage.stage).trim_end();
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
