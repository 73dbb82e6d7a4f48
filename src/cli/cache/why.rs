//! `pipe cache gc --explain`: for what stays, who needs it; for what goes, that nobody does.

use std::collections::{BTreeMap, HashMap, HashSet};

use indexmap::IndexMap;
use owo_colors::{OwoColorize, Style};
use pipe_stage::Digest;
use serde_json::{Value, json};

use crate::{
    cache::{Category, Division, Home, Unneeded, Usage},
    cli::{
        CliError,
        table::{Cell, Table},
    },
    report::{bytes, plural, printable},
    runs::{Holder, Judged, RunId, Runs, Stays},
};

/// The artifacts of a home with the reason why each stays or goes.
pub(super) struct Why {
    stays: Vec<Held>,
    goes: Vec<(Unneeded, String)>,
    /// Kinds of things of which something goes, with the reason.
    kinds: Vec<(Category, &'static str)>,
}

struct Held {
    artifact: Digest,
    bytes: u64,
    by: Vec<Holder>,
}

impl Why {
    /// Looks it up, before anything is removed.
    pub(super) fn find(home: &Home, runs: &Runs, judged: &Judged, division: &Division) -> Result<Self, CliError> {
        let holders: BTreeMap<Digest, Vec<Holder>> = judged.holders(runs)?;
        let usage = Usage::measure(home, &holders.keys().copied().collect())?;
        let each: HashMap<Digest, HashSet<Digest>> = holders.keys().map(|one| (*one, [*one].into())).collect();
        let shares = usage.shares(&each);
        let held = |(artifact, by)| Held { artifact, bytes: shares.get(&artifact).map_or(0, |share| share.bytes), by };
        let mut stays: Vec<Held> = holders.into_iter().map(held).collect();
        stays.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.artifact.cmp(&b.artifact)));
        let goes = division.artifacts.iter().map(|gone| (gone.clone(), whose(gone, judged))).collect();
        let kinds = Category::ALL.into_iter().filter(|category| division.goes(*category).files > 0);
        Ok(Self { stays, goes, kinds: kinds.map(|category| (category, reason(category))).collect() })
    }

    pub(super) fn json(&self) -> Value {
        let stays = self
            .stays
            .iter()
            .map(|held| json!({ "artifact": held.artifact, "bytes": held.bytes, "needed_by": held.by }));
        let goes = self.goes.iter().map(|(gone, why)| {
            json!({ "artifact": gone.artifact, "stage": gone.stage, "bytes": gone.bytes, "run": gone.run, "why": why })
        });
        json!({ "stays": stays.collect::<Vec<_>>(), "goes": goes.collect::<Vec<_>>() })
    }

    pub(super) fn text(&self, dry_run: bool) -> String {
        let mut text = String::new();
        if !self.stays.is_empty() {
            let mut groups = IndexMap::new();
            for held in &self.stays {
                let (who, more) = needed_by(&held.by);
                let name = held.by.first().map(Holder::output).map(name).unwrap_or_default();
                put(&mut groups, who, line(held.bytes, &name, &held.artifact, more));
            }
            text += &format!("\n{}\n{}", "stays, because it is needed".bold(), under_titles(&groups));
        }
        if !self.goes.is_empty() {
            let mut groups = IndexMap::new();
            for (gone, why) in &self.goes {
                put(&mut groups, why.clone(), line(gone.bytes, &gone.stage, &gone.artifact, String::new()));
            }
            let title = if dry_run { "would go, because nothing needs it" } else { "gone, because nothing needed it" };
            text += &format!("\n{}\n{}", title.bold(), under_titles(&groups));
        }
        if !self.kinds.is_empty() {
            let mut table = Table::default();
            for (category, why) in &self.kinds {
                table.row([super::gc::words(*category).into(), Cell::from(*why).style(Style::new().dimmed())]);
            }
            let title =
                if dry_run { "of what would go, nothing is needed" } else { "of what is gone, nothing was needed" };
            text += &format!("\n{}\n{}", title.bold(), table.to_text(2));
        }
        text
    }
}

/// Rows of tables, by what stands above them.
type Groups = IndexMap<String, Table>;

fn put(groups: &mut Groups, title: String, row: [Cell; 4]) {
    groups.entry(title).or_default().row(row);
}

fn under_titles(groups: &Groups) -> String {
    groups.iter().map(|(title, table)| format!("  {title}\n{}", table.to_text(4))).collect()
}

/// `parts.train`, or just `tokens`.
fn name((stage, output): (&str, &str)) -> String {
    if output == "out" { stage.to_owned() } else { format!("{stage}.{output}") }
}

fn line(size: u64, name: &str, artifact: &Digest, more: String) -> [Cell; 4] {
    [
        Cell::from(bytes(size)).right(),
        printable(name).into(),
        Cell::from(artifact.short()).style(Style::new().dimmed()),
        more.into(),
    ]
}

/// The first who needs it; how many more do.
fn needed_by(by: &[Holder]) -> (String, String) {
    let runs = by.iter().filter(|holder| matches!(holder, Holder::Run { .. })).count();
    let first = match by.first() {
        None => String::new(),
        Some(Holder::Run { run, why, .. }) => format!("by run {run} ({})", why_one(*why)),
        Some(Holder::Pipeline { pipeline, .. }) => format!("by pipeline `{}`, which had it last", printable(pipeline)),
    };
    let more = match runs.saturating_sub(1) {
        0 => String::new(),
        more => format!("and by {}", plural(more, "other run")),
    };
    (first, more)
}

/// Why the run that made an artifact does not keep it.
fn whose(gone: &Unneeded, judged: &Judged) -> String {
    let Some(run) = &gone.run else { return "no run names it".to_owned() };
    let is = |id: &RunId| id.as_str() == run;
    if judged.go.iter().any(is) {
        format!("of run {run}, which goes")
    } else if judged.stay.iter().any(|(summary, _)| is(&summary.id)) {
        format!("run {run} made it and did not keep it")
    } else {
        format!("of run {run}, which is gone")
    }
}

fn why_one(why: Stays) -> &'static str {
    match why {
        Stays::Live => "goes on",
        Stays::LastOfPipeline => "last of its pipeline",
        Stays::AmongLast => "among the last of its pipeline",
        Stays::Recent => "not old enough",
        Stays::NoRule => "no rule lets it go",
    }
}

fn reason(category: Category) -> &'static str {
    match category {
        Category::Runs => "let go by the rules, or of no run that stays",
        Category::Records => "under keys that no run or pipeline that stays has",
        Category::Objects => "in no artifact that stays",
        Category::Logs => "of no run and no record that stays",
        Category::Resume => "of attempts at keys that no run that stays has",
        Category::Quarantine => "found damaged",
        Category::Hints => "about what goes: for speed only",
        Category::Scratch => "left by attempts that are over: nobody has their locks",
    }
}
