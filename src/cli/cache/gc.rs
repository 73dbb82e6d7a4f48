//! `pipe cache gc`: remove what nothing needs.

use std::{collections::BTreeMap, num::NonZeroUsize, time::Duration};

use clap::Args;
use indexmap::IndexMap;
use owo_colors::{OwoColorize, Style};
use serde_json::json;

use super::{home, why::Why};
use crate::{
    cache::{Amount, CacheError, Category, Division, Home},
    cli::{
        CliError, Exit, Format,
        count::at_least_one,
        get::say_that_it_waits,
        pipeline::{print, print_json},
        said::say,
        table::{Cell, Table},
    },
    report::{bytes, count, plural},
    runs::{Judged, Retention, Runs, Stays},
};

/// The text names so many of the artifacts that go.
const ARTIFACTS_NAMED: usize = 5;

/// Arguments of `pipe cache gc`.
#[derive(Args)]
pub(in crate::cli) struct Gc {
    /// Let runs go that are not among the last N of their pipeline
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    keep_last: Option<NonZeroUsize>,
    /// Let runs go that began longer ago than this: `30d`, `12h`, `2 weeks`. With --keep-last, a run goes only if both
    /// let it
    #[arg(long, value_name = "AGE", value_parser = age)]
    older_than: Option<Duration>,
    /// Say what would be removed, and remove nothing
    #[arg(long)]
    dry_run: bool,
    /// Say of each artifact that stays who needs it, and of each that goes that nobody does
    #[arg(long)]
    explain: bool,
    /// Wait for those who use the cache, instead of giving up
    #[arg(long, conflicts_with = "dry_run")]
    wait: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

fn age(text: &str) -> Result<Duration, String> {
    let span: jiff::Span = text.parse().map_err(|_| "write it like 30d, 12h or 2 weeks".to_owned())?;
    let days = jiff::SpanRelativeTo::days_are_24_hours();
    let age = span.to_duration(days).map_err(|_| "write it in weeks, days, hours, minutes or seconds".to_owned())?;
    Duration::try_from(age).map_err(|_| "it lies in the future".to_owned())
}

impl Gc {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let home = home()?;
        let runs = Runs::new(&home);
        let _in_use = if self.dry_run { Some(home.share(say_that_it_waits)?) } else { None };
        let alone = if self.dry_run { None } else { Some(self.alone(&home, &runs)?) };
        let retention = Retention { keep_last: self.keep_last, older_than: self.older_than };
        let judged = retention.judge(&runs, jiff::Timestamp::now())?;
        let division = Division::find(&home, &judged.needed(&runs)?)?;
        let report = Report::of(&division, &judged);
        let artifacts = division.artifacts.clone();
        let why = if self.explain { Some(Why::find(&home, &runs, &judged, &division)?) } else { None };
        let mut left = Vec::new();
        if let Some(alone) = alone {
            left = division.remove(&home, &alone)?;
            runs.keep_order();
        }
        match self.format {
            Format::Text => {
                let mut text = report.text(self.dry_run, retention.lets_go());
                let name = |artifact: &crate::cache::Unneeded| {
                    let run = artifact.run.as_ref().map_or_else(String::new, |run| format!(", run {run}"));
                    format!("  {:>10}  `{}`{run}\n", bytes(artifact.bytes), artifact.stage)
                };
                if let Some(why) = &why {
                    text += &why.text(self.dry_run);
                } else if !artifacts.is_empty() {
                    text += "\nthe largest artifacts of these:\n";
                    text.extend(artifacts.iter().take(ARTIFACTS_NAMED).map(name));
                }
                print(&text)?;
            }
            Format::Json => print_json(&json!({
                "dry_run": self.dry_run, "runs_that_stay": judged.stay.iter().map(|(run, why)| json!({
                    "run": run.id, "pipeline": run.pipeline, "why": why,
                })).collect::<Vec<_>>(),
                "runs_that_go": judged.go, "goes": report.goes, "stays": report.stays, "artifacts": artifacts,
                "why": why.as_ref().map(Why::json),
                "left": left.iter().map(|(path, error)| json!({
                    "path": path, "why": error.to_string(),
                })).collect::<Vec<_>>(),
            }))?,
        }
        for (path, error) in &left {
            say!("{} cannot remove {}: {error}", "warning:".yellow(), path.display());
        }
        Ok(if left.is_empty() { Exit::Done } else { Exit::Environment })
    }

    fn alone(&self, home: &Home, runs: &Runs) -> Result<crate::cache::Exclusive, CliError> {
        if let Some(alone) = home.exclusive(false)? {
            return Ok(alone);
        }
        let live = runs.ids().into_iter().find(|id| runs.is_live(id)).and_then(|id| runs.summary(&id));
        let by = live.map_or_else(|| "another process".to_owned(), |run| format!("run {} of {}", run.id, run.pipeline));
        if self.wait {
            say!("waiting for {by}, which uses the cache");
            if let Some(alone) = home.exclusive(true)? {
                return Ok(alone);
            }
        }
        Err(CacheError::InUse { path: home.root().to_owned(), by }.into())
    }
}

/// What goes and what stays.
struct Report {
    goes: IndexMap<Category, Amount>,
    stays: IndexMap<Category, Amount>,
    runs_stay: usize,
    runs_go: usize,
    reasons: BTreeMap<Stays, usize>,
}

impl Report {
    fn of(division: &Division, judged: &Judged) -> Self {
        let mut reasons: BTreeMap<Stays, usize> = BTreeMap::new();
        judged.stay.iter().for_each(|(_, why)| *reasons.entry(*why).or_default() += 1);
        Self {
            goes: Category::ALL.map(|category| (category, division.goes(category))).into(),
            stays: Category::ALL.map(|category| (category, division.stays(category))).into(),
            runs_stay: judged.stay.len(),
            runs_go: judged.go.len(),
            reasons,
        }
    }

    fn text(&self, dry_run: bool, lets_go: bool) -> String {
        let total = |amounts: &IndexMap<Category, Amount>| amounts.values().map(|amount| amount.bytes).sum::<u64>();
        let mut table = Table::default();
        let heading = |text: &str| Cell::from(text).style(Style::new().dimmed());
        let goes = if dry_run { "would go" } else { "removed" };
        table.row([heading(""), heading(goes).right(), heading(""), heading("needed").right(), heading("")]);
        for category in Category::ALL {
            let (goes, stays) = (self.goes[&category], self.stays[&category]);
            if goes.files + stays.files > 0 {
                let size = |amount: Amount| if amount.files == 0 { String::new() } else { bytes(amount.bytes) };
                table.row([
                    words(category).into(),
                    Cell::from(count(goes.files)).right(),
                    Cell::from(size(goes)).right(),
                    Cell::from(count(stays.files)).right(),
                    Cell::from(size(stays)).right(),
                ]);
            }
        }
        let mut text = table.to_text(0);
        let verb = if dry_run { "would free" } else { "freed" };
        text += &format!("\n{verb} {}; {} stay\n", bytes(total(&self.goes)), bytes(total(&self.stays)));
        let reasons: Vec<String> =
            self.reasons.iter().map(|(why, runs)| format!("{runs} {}", why_words(*why))).collect();
        let gone = if dry_run { "would go" } else { "gone" };
        text += &format!("{} {gone}, {} kept", plural(self.runs_go, "run"), self.runs_stay);
        text += &if reasons.is_empty() { "\n".to_owned() } else { format!(": {}\n", reasons.join(", ")) };
        if !lets_go && self.runs_stay > 0 {
            text += "runs stay until you say which may go: --keep-last N, --older-than 30d\n";
        }
        text
    }
}

pub(super) fn words(category: Category) -> &'static str {
    match category {
        Category::Runs => "runs and their pipelines",
        Category::Records => "action records",
        Category::Objects => "objects",
        Category::Logs => "logs",
        Category::Resume => "unfinished work",
        Category::Quarantine => "quarantine",
        Category::Hints => "hints",
        Category::Scratch => "scratch",
    }
}

fn why_words(why: Stays) -> &'static str {
    match why {
        Stays::Live => "still going on",
        Stays::LastOfPipeline => "last of their pipeline",
        Stays::AmongLast => "among the last of their pipeline",
        Stays::Recent => "not old enough",
        Stays::NoRule => "with no rule to let them go",
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn an_age_is_written_as_people_do() {
        for (text, hours) in [("30d", 720), ("12h", 12), ("2 weeks", 336), ("1w 1d", 192), ("P2D", 48)] {
            assert_eq!(age(text).unwrap(), Duration::from_hours(hours), "{text}");
        }
        for text in ["", "30", "soon", "1 month", "2y", "-3d"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
