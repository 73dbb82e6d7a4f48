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
    runs::{Counts, Measure, RunId, RunSummary},
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
    // In a terminal, what is least missed is left out until the lines fit.
    let table = Table::that_fits(Brevity::ALL.into_iter().map(|brevity| table(runs, brevity)));
    let mut text = table.to_text(0);
    if runs.len() < total {
        text += &format!("\n{} of {total}: --limit shows more\n", runs.len());
    }
    text
}

/// How much the list leaves out. Each one leaves out more than the one before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Brevity {
    Nothing,
    /// The year and the seconds of the beginning.
    Seconds,
    /// Of ids all but the last part, which names a run as well.
    Ids,
    /// The stage of the result.
    Stage,
    /// What became of the stages that did not run.
    Outcomes,
    /// The beginning.
    Started,
}

impl Brevity {
    const ALL: [Self; 6] = [Self::Nothing, Self::Seconds, Self::Ids, Self::Stage, Self::Outcomes, Self::Started];
}

fn table(runs: &[RunSummary], brevity: Brevity) -> Table {
    let mut table = Table::default();
    let heading = |text: &str| Cell::from(text).style(Style::new().dimmed());
    table.row(["run", "pipeline", "status", "started", "took", "stages", "result"].map(heading));
    for run in runs {
        let (word, style) = status(run.status);
        let took = run.duration_seconds.map(seconds);
        let measure = run.measure.as_ref();
        table.row([
            if brevity >= Brevity::Ids { last_part(&run.id) } else { run.id.to_string() }.into(),
            report::printable(&run.pipeline).into(),
            Cell::from(word).style(style),
            match brevity {
                Brevity::Nothing => report::moment(run.started),
                Brevity::Started => String::new(),
                _ => report::short_moment(run.started),
            }
            .into(),
            Cell::from(took.unwrap_or_default()).right(),
            if brevity >= Brevity::Outcomes { short_counts(run.counts) } else { counts(run.counts) }.into(),
            measure.map(|measure| result(measure, brevity)).unwrap_or_default().into(),
        ]);
    }
    table
}

/// The four digits by which a run can be called, too.
fn last_part(id: &RunId) -> String {
    id.as_str().rsplit('-').next().unwrap_or_default().to_owned()
}

fn result(measure: &Measure, brevity: Brevity) -> String {
    let value = format!("{} {}", report::printable(&measure.name), report::measurement(measure.value));
    if brevity >= Brevity::Stage { value } else { format!("{value} ({})", measure.stage) }
}

/// `2 of 11 ran`.
fn short_counts(counts: Counts) -> String {
    let Counts { hits, ran, failed, cancelled, unfinished, skipped } = counts;
    format!("{ran} of {} ran", hits + ran + failed + cancelled + unfinished + skipped)
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
