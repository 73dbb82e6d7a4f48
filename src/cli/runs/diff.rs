//! `pipe runs diff`: what differs between two runs.

use clap::Args;
use owo_colors::{OwoColorize, Style};
use serde_json::Value;

use super::{
    CliError, Exit, Format, Scope, candidates,
    change::{Mark, Shown, shown},
    figure, outcome,
    pipeline::{print, print_json},
    seconds, status,
    table::{Cell, Table},
};
use crate::{
    report,
    runs::{Change, FigureChange, InRuns, Outcome, Pair, RunDiff, RunRecord, RunStatus, Side, StageDiff},
};

/// Arguments of `pipe runs diff`.
#[derive(Args)]
pub(super) struct Diff {
    /// The first run: `last`, `last~1`, an id or the beginning of one
    #[arg(default_value = "last~1", add = candidates::runs())]
    a: String,
    /// The second run
    #[arg(default_value = "last", add = candidates::runs())]
    b: String,
    #[command(flatten)]
    scope: Scope,
    /// End with code 1 if the runs differ
    #[arg(long)]
    exit_code: bool,
    /// How to write the differences
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Diff {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let scoped = self.scope.open()?;
        let [a, b] = [&self.a, &self.b].map(|word| scoped.choose(word).map(|run| scoped.runs.side(run)));
        let (a, b) = (a?, b?);
        let diff = RunDiff::between(&a, &b);
        match self.format {
            Format::Json => print_json(&diff)?,
            Format::Text => print(&text(&diff, &a, &b))?,
        }
        Ok(if self.exit_code && !diff.equal { Exit::Code(1.into()) } else { Exit::Done })
    }
}

fn text(diff: &RunDiff, a: &Side, b: &Side) -> String {
    let mut header = Table::default();
    for (name, run) in [("a", &a.record), ("b", &b.record)] {
        header.row(heading(name, run));
    }
    let mut text = header.to_text(0);
    let mut about = Rows::default();
    diff.run.iter().for_each(|change| about.change("", change));
    if !diff.run.is_empty() {
        text.push('\n');
        text += &about.to_text(0);
    }
    let told: Vec<_> = diff.stages.iter().filter(|(_, stage)| is_told(stage)).collect();
    for (name, stage) in &told {
        text += &format!("\n{}{}\n", name.bold(), note(stage));
        text += &stage_table(stage, [a.record.status, b.record.status]).to_text(2);
        for (side, run) in [("a", &a.record), ("b", &b.record)] {
            if let Some(error) = run.stages.get(*name).map(|stage| &stage.error).filter(|error| !error.is_empty()) {
                text += &format!("  {} {}\n", format!("error in {side}:").red(), report::printable(&error.join(": ")));
            }
        }
    }
    text.push('\n');
    let same = diff.stages.len() - told.len();
    text += &if diff.equal {
        let count = report::plural(diff.stages.len(), "stage");
        format!("the runs are equal: {count} with the same keys and the same artifacts\n")
    } else {
        let differ = diff.stages.values().filter(|stage| !stage.is_equal()).count();
        format!("{} of {} differ, {same} are the same\n", differ, report::plural(diff.stages.len(), "stage"))
    };
    text
}

/// Durations differ always, and figures of the speed do: alone they are not worth a line.
fn is_told(stage: &StageDiff) -> bool {
    !stage.is_equal() || !stage.config.is_empty()
}

fn is_up_to_date(outcome: &Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Hit | Outcome::Ran))
}

fn note(stage: &StageDiff) -> String {
    match stage.in_runs {
        InRuns::OnlyA => "  only in a".to_owned(),
        InRuns::OnlyB => "  only in b".to_owned(),
        InRuns::Both if stage.is_equal() => "  (same key and artifacts)".dimmed().to_string(),
        InRuns::Both => String::new(),
    }
}

fn heading(name: &str, run: &RunRecord) -> [Cell; 6] {
    let (word, style) = status(run.status);
    let took = run.ended.map(|_| seconds(run.duration_seconds)).unwrap_or_default();
    [
        Cell::from(name).style(Style::new().bold()),
        run.id.to_string().into(),
        report::printable(&run.pipeline).into(),
        Cell::from(word).style(style),
        report::moment(run.started).into(),
        Cell::from(took).right(),
    ]
}

/// Rows of a table, some of them with lines of their own below.
#[derive(Default)]
struct Rows {
    table: Table,
    below: Vec<Vec<(Mark, String)>>,
}

impl Rows {
    fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.table.row(cells);
        self.below.push(Vec::new());
    }

    fn change(&mut self, lead: &str, Change { field, from, to }: &Change) {
        let field = format!("{lead}{field}");
        match shown(from, to) {
            Shown::Pair(from, to) => self.row(pair(&field, from, to)),
            Shown::Lines(lines) => {
                self.table.row([Cell::from(field).style(Style::new().dimmed())]);
                self.below.push(lines);
            }
        }
    }

    fn to_text(&self, indent: usize) -> String {
        let mut text = String::new();
        for (row, below) in self.table.to_text(indent).lines().zip(&self.below) {
            text += row;
            text.push('\n');
            for (mark, line) in below {
                let line = match mark {
                    Mark::Gone => format!("- {line}").red().to_string(),
                    Mark::New => format!("+ {line}").green().to_string(),
                    Mark::More => format!("  {line}").dimmed().to_string(),
                };
                text += &format!("{:1$}{line}\n", "", indent + 2);
            }
        }
        text
    }
}

fn stage_table(stage: &StageDiff, statuses: [RunStatus; 2]) -> Rows {
    let mut table = Rows::default();
    if stage.in_runs != InRuns::Both {
        return table;
    }
    let changes = |table: &mut Rows, lead: &str, changes: &[Change]| {
        changes.iter().for_each(|change| table.change(lead, change));
    };
    changes(&mut table, "", &stage.config);
    changes(&mut table, "version of ", &stage.pins);
    changes(&mut table, "file of ", &stage.files);
    for variable in &stage.environment_variables {
        table.row([format!("environment variable {variable}").into(), "differs".into()]);
    }
    changes(&mut table, "input ", &stage.inputs);
    if let Some(Pair { from, to }) = stage.outcome {
        let word = |stage: Option<Outcome>, status| stage.map_or("-", |stage| outcome(stage, status).0);
        table.row(pair("outcome", word(from, statuses[0]).to_owned(), word(to, statuses[1]).to_owned()));
    }
    if let Some(Pair { from, to }) = stage.key {
        let short = |key: Option<crate::cache::Key>| key.map_or_else(|| "-".to_owned(), |key| key.short());
        table.row(pair("key", short(from), short(to)));
    }
    changes(&mut table, "output ", &stage.outputs);
    // What was not made has none, which says nothing new.
    if stage.outcome.is_none_or(|pair| [pair.from, pair.to].iter().all(is_up_to_date)) {
        stage.figures.iter().for_each(|figure| table.row(figure_row(figure)));
        changes(&mut table, "made with ", &stage.environment);
    }
    if let Some(Pair { from, to }) = stage.duration {
        table.row(pair("took", seconds(from), seconds(to)));
    }
    table
}

fn pair(field: &str, from: String, to: String) -> [Cell; 4] {
    [Cell::from(field).style(Style::new().dimmed()), from.into(), "->".into(), to.into()]
}

fn figure_row(FigureChange { name, from, to, difference }: &FigureChange) -> [Cell; 5] {
    let told = |value: &Option<Value>| value.as_ref().map_or_else(|| "-".to_owned(), |value| figure(name, value));
    let base = from.as_ref().and_then(Value::as_f64).unwrap_or(0.0);
    let by = difference.map_or_else(String::new, |difference| {
        let sign = if difference > 0.0 { "+" } else { "" };
        let share =
            if base == 0.0 { String::new() } else { format!(", {sign}{:.2} %", 100.0 * difference / base.abs()) };
        format!("({sign}{}{share})", report::named(name, difference))
    });
    let [field, from, arrow, to] = pair(name, told(from), told(to));
    [field, from, arrow, to, by.into()]
}
