//! `pipe log`: what a stage said when it ran.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use clap::Args;
use owo_colors::Style;
use serde_json::{Value, json};

use super::{
    CliError, Exit, Format, candidates,
    count::at_least_one,
    pipeline::{print, print_json},
    recorded::{Made, Recorded},
    table::{Cell, Table},
};
use crate::{
    report,
    runs::{Outcome, RunId, RunStatus, Runs, StageRun},
};

/// How often a log that is followed is looked at.
const INTERVAL: Duration = Duration::from_millis(100);

/// When a log that is followed was shortened, so much of its end is shown, in bytes.
const AFTER_CUT_BYTES: u64 = 16 << 10;

/// A list of attempts goes no further back.
const ATTEMPTS: usize = 50;

/// Arguments of `pipe log`.
#[derive(Args)]
pub(super) struct Log {
    /// The stage
    #[arg(add = candidates::recorded_stages())]
    stage: String,
    #[command(flatten)]
    recorded: Recorded,
    /// Show this attempt of a stage that was tried several times in the run, counted from 1; without it, the last one
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    attempt: Option<NonZeroUsize>,
    /// Go on showing what is added until the stage ends
    #[arg(long, short, conflicts_with_all = ["attempt", "format"])]
    follow: bool,
    /// List the attempts at the stage instead, the newest first
    #[arg(long, conflicts_with_all = ["attempt", "follow", "run"])]
    attempts: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

impl Log {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        if self.attempts {
            return self.list();
        }
        let found = |stage: &StageRun| stage.log.is_some() || stage.outcome == Outcome::Hit;
        let (home, mut run) = self.recorded.run_with(&self.stage, found)?;
        let runs = Runs::new(&home);
        let stage = &mut run.stages[&self.stage];
        runs.complete_stage(stage);
        let log = match self.attempt {
            None => stage.log.clone(),
            Some(attempt) => Some(self.log_of(attempt, &run.id, stage)?),
        };
        let path = log.iter().fold(home.root().to_owned(), |root, log| root.join(log));
        if self.follow {
            follow(&path, || is_running(&runs, &run.id, &self.stage)).map_err(|error| gone(&path, &error))?;
            return Ok(Exit::Done);
        }
        let bytes = fs::read(&path).map_err(|error| gone(&path, &error))?;
        let text = String::from_utf8_lossy(&bytes);
        let stage = &run.stages[&self.stage];
        match self.format {
            Format::Text => print(&text)?,
            Format::Json => print_json(&json!({
                "stage": self.stage, "run": run.id, "outcome": stage.outcome, "attempts": stage.attempts,
                "figures": stage.figures, "error": stage.error, "path": path, "log": text,
            }))?,
        }
        Ok(Exit::Done)
    }

    fn log_of(&self, attempt: NonZeroUsize, run: &RunId, stage: &StageRun) -> Result<PathBuf, CliError> {
        let found = stage.attempts.get(attempt.get() - 1);
        found.map(|attempt| attempt.log.clone()).ok_or_else(|| {
            let count = report::plural(stage.attempts.len(), "attempt");
            let message = format!("the stage `{}` has no attempt {attempt} in the run {run}", self.stage);
            CliError::usage(message, format!("it has {count} there; `pipe log {} --attempts` lists all", self.stage))
        })
    }

    fn list(&self) -> Result<Exit, CliError> {
        let attempts = self.recorded.attempts(&self.stage, ATTEMPTS)?;
        match self.format {
            Format::Json => {
                let attempt = |Made { run, status, number, attempt }: &Made| {
                    json!({ "run": run, "status": status, "attempt": number, "started": attempt.started,
                        "outcome": attempt.outcome, "duration_seconds": attempt.duration_seconds,
                        "error": attempt.error, "log": attempt.log })
                };
                let attempts: Vec<Value> = attempts.iter().map(attempt).collect();
                print_json(&json!({ "stage": self.stage, "attempts": attempts }))?;
            }
            Format::Text => print(&text(&attempts))?,
        }
        Ok(Exit::Done)
    }
}

fn text(attempts: &[Made]) -> String {
    let mut table = Table::default();
    let heading = |text: &str| Cell::from(text).style(Style::new().dimmed());
    table.row(["run", "attempt", "started", "outcome", "took", "error"].map(heading));
    for Made { run, status, number, attempt } in attempts {
        let (word, style) = super::runs::outcome(attempt.outcome.unwrap_or(Outcome::Unfinished), *status);
        let took = attempt.outcome.map(|_| super::runs::seconds(attempt.duration_seconds));
        table.row([
            run.to_string().into(),
            Cell::from(number.to_string()).right(),
            report::moment(attempt.started).into(),
            Cell::from(word).style(style),
            Cell::from(took.unwrap_or_default()).right(),
            report::printable(&attempt.error.join(": ")).into(),
        ]);
    }
    table.to_text(0)
}

fn gone(path: &Path, error: &io::Error) -> CliError {
    let help = "the log was removed from the cache; run the stage again for a new one".to_owned();
    CliError::usage(format!("{}: {error}", path.display()), help)
}

/// Whether the stage still runs in that run.
fn is_running(runs: &Runs, id: &RunId, stage: &str) -> bool {
    runs.get(id).is_some_and(|run| {
        let outcome = run.stages.get(stage).map(|stage| stage.outcome);
        run.status == RunStatus::Running && outcome == Some(Outcome::Unfinished)
    })
}

/// Shows a log, and what is added to it as long as `goes_on`.
fn follow(path: &Path, goes_on: impl Fn() -> bool) -> io::Result<()> {
    let mut file = File::open(path)?;
    let mut shown_bytes = 0;
    loop {
        // Asked before the rest is read, so that nothing is missed.
        let last = !goes_on();
        let mut bytes = Vec::new();
        let length = file.metadata()?.len();
        if length < shown_bytes {
            // It has grown so long that its middle was taken out.
            bytes.extend(b"\n[... the log was shortened ...]\n");
            file.seek(SeekFrom::Start(length.saturating_sub(AFTER_CUT_BYTES)))?;
        }
        file.read_to_end(&mut bytes)?;
        shown_bytes = file.stream_position()?;
        // A reader that went away ends it.
        let shown = io::stdout().lock().write_all(&bytes);
        if last || shown.is_err() {
            return Ok(());
        }
        thread::sleep(INTERVAL);
    }
}
