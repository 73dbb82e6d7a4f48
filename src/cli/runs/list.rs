//! `pipe runs list`: a line a run.

use clap::Args;
use owo_colors::Style;
use serde_json::json;

use super::{
    CliError, Exit, Format, Scope,
    count::whole,
    pipeline::{print, print_json},
    seconds, status,
    table::{Cell, Table},
};
use crate::{
    cache::Home,
    report,
    runs::{Counts, RunSummary},
};

/// Arguments of `pipe runs list`.
#[derive(Args)]
pub(super) struct List {
    #[command(flatten)]
    scope: Scope,
    /// List at most so many
    #[arg(long, short = 'n', value_name = "N", value_parser = whole, default_value = "20")]
    limit: usize,
    /// How to write the list
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl List {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let scoped = self.scope.open()?;
        let mut runs: Vec<RunSummary> = scoped.summaries().collect();
        let total = runs.len();
        scoped.runs.inherit_measures(&mut runs, self.limit);
        runs.truncate(self.limit);
        match self.format {
            Format::Json => print_json(&json!({ "runs": runs, "total": total }))?,
            Format::Text => print(&text(&runs, total, &scoped.home))?,
        }
        Ok(Exit::Done)
    }
}

fn text(runs: &[RunSummary], total: usize, home: &Home) -> String {
    if total == 0 {
        return format!("no runs are recorded in {}\n", home.root().display());
    }
    let mut table = Table::default();
    let heading = |text: &str| Cell::from(text).style(Style::new().dimmed());
    table.row(["run", "pipeline", "status", "started", "took", "stages", "result"].map(heading));
    for run in runs {
        let (word, style) = status(run.status);
        let took = run.duration_seconds.map(seconds);
        let measure = run.measure.as_ref();
        table.row([
            run.id.to_string().into(),
            report::printable(&run.pipeline).into(),
            Cell::from(word).style(style),
            report::moment(run.started).into(),
            Cell::from(took.unwrap_or_default()).right(),
            counts(run.counts).into(),
            measure
                .map(|measure| format!("{} {} ({})", measure.name, report::measurement(measure.value), measure.stage))
                .unwrap_or_default()
                .into(),
        ]);
    }
    let mut text = table.to_text(0);
    if runs.len() < total {
        text += &format!("\n{} of {total}: --limit shows more\n", runs.len());
    }
    text
}

/// `11 ran`, `2 ran, 3 hits, 1 failed, 5 not begun`.
pub(super) fn counts(counts: Counts) -> String {
    let Counts { hits, ran, failed, cancelled, unfinished, skipped } = counts;
    let hit = if hits == 1 { "hit" } else { "hits" };
    let parts = [
        (ran, "ran"),
        (hits, hit),
        (failed, "failed"),
        (cancelled, "stopped"),
        (unfinished, "unfinished"),
        (skipped, "not begun"),
    ];
    let told = parts.iter().filter(|(count, _)| *count > 0).map(|(count, word)| format!("{count} {word}"));
    told.collect::<Vec<_>>().join(", ")
}
