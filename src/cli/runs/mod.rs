//! `pipe runs`: recorded runs, listed, shown and compared.

mod change;
mod diff;
mod list;
mod show;

use std::time::Duration;

use clap::{Args, Subcommand};
use owo_colors::Style;
use serde_json::Value;

use super::{CliError, Exit, Format, candidates, count, pipeline, recorded::Scope, table};
use crate::{
    report,
    runs::{Outcome, RunStatus},
};

/// Arguments of `pipe runs`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct Runs {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    list: list::List,
}

#[derive(Subcommand)]
enum Command {
    /// List runs, the newest first (what `pipe runs` alone does)
    List(list::List),
    /// Show one run: its stages, how they ended, their keys and figures
    Show(show::Show),
    /// Say what differs between two runs: values, files, keys, artifacts, figures
    Diff(diff::Diff),
}

impl Runs {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        match self.command {
            None => self.list.execute(),
            Some(Command::List(list)) => list.execute(),
            Some(Command::Show(show)) => show.execute(),
            Some(Command::Diff(diff)) => diff.execute(),
        }
    }
}

/// A status in a word, and its colour.
fn status(status: RunStatus) -> (&'static str, Style) {
    match status {
        RunStatus::Running => ("running", Style::new().cyan()),
        RunStatus::Done => ("done", Style::new().green()),
        RunStatus::Failed => ("failed", Style::new().red()),
        RunStatus::Cancelled => ("stopped", Style::new().yellow()),
        RunStatus::Killed => ("killed", Style::new().red()),
    }
}

/// An outcome in a word, and its colour. `run` tells what a stage that began and did not end means.
pub(super) fn outcome(outcome: Outcome, run: RunStatus) -> (&'static str, Style) {
    match outcome {
        Outcome::Hit => ("hit", Style::new().dimmed()),
        Outcome::Ran => ("ran", Style::new().green()),
        Outcome::Failed => ("failed", Style::new().red()),
        Outcome::Cancelled => ("stopped", Style::new().yellow()),
        Outcome::Unfinished if run == RunStatus::Running => ("running", Style::new().cyan()),
        Outcome::Unfinished => ("killed", Style::new().red()),
        Outcome::Skipped => ("-", Style::new().dimmed()),
    }
}

/// The value of a figure as a person reads it.
fn figure(name: &str, value: &Value) -> String {
    match (value.as_u64(), value.as_f64()) {
        (Some(count), _) if !name.split('_').any(|word| matches!(word, "bytes" | "percent")) => report::count(count),
        (_, Some(number)) => report::named(name, number),
        _ => value.as_str().map_or_else(|| value.to_string(), report::printable),
    }
}

pub(super) fn seconds(seconds: f64) -> String {
    report::duration(Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or(Duration::MAX))
}
