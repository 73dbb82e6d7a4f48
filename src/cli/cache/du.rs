//! `pipe cache du`: what takes the space.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use clap::Args;
use indexmap::IndexMap;
use owo_colors::Style;
use pipe_stage::Digest;
use serde_json::json;

use super::home;
use crate::{
    cache::{Amount, Category, Division, Records, Share, Usage},
    cli::{
        CliError, Exit, Format,
        count::whole,
        get::say_that_it_waits,
        pipeline::{print, print_json},
        table::{Cell, Table},
    },
    report::{bytes, count, plural, printable},
    runs::{Retention, RunId, Runs},
};

/// Arguments of `pipe cache du`.
#[derive(Args)]
pub(in crate::cli) struct Du {
    /// List at most so many pipelines, stages and runs
    #[arg(long, short = 'n', value_name = "N", value_parser = whole, default_value = "10")]
    limit: usize,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What was found out, the largest first.
struct Found {
    pipelines: Vec<(String, Share)>,
    stages: Vec<((String, String), Share)>,
    runs: Vec<((RunId, String), Share)>,
    division: Division,
}

impl Du {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let home = home()?;
        let _in_use = home.share(say_that_it_waits)?;
        let runs = Runs::new(&home);
        let (mut pipelines, mut stages, mut by_run) = (HashMap::new(), HashMap::new(), HashMap::new());
        for run in runs.ids().into_iter().filter_map(|id| runs.get(&id)) {
            for (name, stage) in &run.stages {
                for artifact in stage.outputs.values().copied() {
                    put(&mut pipelines, run.pipeline.clone(), artifact);
                    put(&mut stages, (run.pipeline.clone(), name.clone()), artifact);
                    put(&mut by_run, (run.id.clone(), run.pipeline.clone()), artifact);
                }
            }
        }
        // What a stage last had stays, though no run that is left may have it.
        let records = Records::new(&home);
        for pipeline in pipelines.keys().cloned().collect::<Vec<_>>() {
            for (stage, record) in records.all_last(&pipeline)? {
                for artifact in record.outputs.into_values() {
                    put(&mut pipelines, pipeline.clone(), artifact);
                    put(&mut stages, (pipeline.clone(), stage.clone()), artifact);
                }
            }
        }
        let usage = Usage::measure(&home, &pipelines.values().flatten().copied().collect())?;
        let judged = Retention::default().judge(&runs, jiff::Timestamp::now())?;
        let found = Found {
            pipelines: sorted(usage.shares(&pipelines)),
            stages: sorted(usage.shares(&stages)),
            runs: sorted(usage.shares(&by_run)),
            division: Division::find(&home, &judged.needed(&runs)?)?,
        };
        match self.format {
            Format::Text => print(&text(&found, self.limit))?,
            Format::Json => print_json(&as_json(&found))?,
        }
        Ok(Exit::Done)
    }
}

fn put<Name: Eq + Hash>(groups: &mut HashMap<Name, HashSet<Digest>>, name: Name, artifact: Digest) {
    groups.entry(name).or_default().insert(artifact);
}

/// The largest first; equal ones by name.
fn sorted<Name: Ord>(shares: HashMap<Name, Share>) -> Vec<(Name, Share)> {
    let mut shares: Vec<(Name, Share)> = shares.into_iter().collect();
    shares.sort_by(|(a, one), (b, two)| two.bytes.cmp(&one.bytes).then_with(|| a.cmp(b)));
    shares
}

fn as_json(found: &Found) -> serde_json::Value {
    let by_category = |amount: fn(&Division, Category) -> Amount| {
        Category::ALL
            .into_iter()
            .map(|category| (category, amount(&found.division, category)))
            .collect::<IndexMap<_, _>>()
    };
    json!({
        "pipelines": found.pipelines.iter()
            .map(|(pipeline, share)| json!({ "pipeline": pipeline, "share": share })).collect::<Vec<_>>(),
        "stages": found.stages.iter()
            .map(|((pipeline, stage), share)| json!({ "pipeline": pipeline, "stage": stage, "share": share }))
            .collect::<Vec<_>>(),
        "runs": found.runs.iter()
            .map(|((run, pipeline), share)| json!({ "run": run, "pipeline": pipeline, "share": share }))
            .collect::<Vec<_>>(),
        "needed": by_category(Division::stays),
        "unneeded": by_category(Division::goes),
    })
}

fn text(found: &Found, limit: usize) -> String {
    let pipelines = found.pipelines.iter().map(|(name, share)| ([printable(name), String::new()], *share));
    let stages = found.stages.iter().map(|((pipeline, stage), share)| ([stage.clone(), printable(pipeline)], *share));
    let runs = found.runs.iter().map(|((run, pipeline), share)| ([run.to_string(), printable(pipeline)], *share));
    let mut text = section("pipeline", pipelines, limit);
    text += &section("stage", stages, limit);
    text += &section("run", runs, limit);

    let amount = |category| (found.division.stays(category), found.division.goes(category));
    let (objects, unneeded) = amount(Category::Objects);
    let shared =
        if text.is_empty() { "" } else { "; what several share counts in each of the lines above, and here once" };
    let (size, number) = (objects.bytes + unneeded.bytes, objects.files + unneeded.files);
    text += &format!("{} in {} objects{shared}\n", bytes(size), count(number));
    let other = |category: Category| {
        let (stays, goes) = amount(category);
        let size = stays.bytes + goes.bytes;
        (size > 0).then(|| format!("{} {}", super::gc::words(category), bytes(size)))
    };
    let others = Category::ALL.into_iter().filter(|category| *category != Category::Objects);
    let others: Vec<String> = others.filter_map(other).collect();
    if !others.is_empty() {
        text += &format!("beside them: {}\n", others.join(", "));
    }
    let free: u64 = Category::ALL.into_iter().map(|category| found.division.goes(category).bytes).sum();
    if free > 0 {
        text += &format!("{} are needed by no run: `pipe cache gc` frees them\n", bytes(free));
    }
    text
}

fn section(title: &str, lines: impl ExactSizeIterator<Item = ([String; 2], Share)>, limit: usize) -> String {
    let total = lines.len();
    if total == 0 {
        return String::new();
    }
    let mut table = Table::default();
    let heading = |text: &str| Cell::from(text).style(Style::new().dimmed());
    table.row([heading("size").right(), heading("not shared").right(), heading("artifacts").right(), heading(title)]);
    for ([name, of], share) in lines.take(limit) {
        table.row([
            Cell::from(bytes(share.bytes)).right(),
            Cell::from(bytes(share.only_bytes)).right(),
            Cell::from(count(share.artifacts as u64)).right(),
            name.into(),
            Cell::from(of).style(Style::new().dimmed()),
        ]);
    }
    let more = if total > limit {
        format!("and {}: --limit shows more\n", plural(total - limit, title))
    } else {
        String::new()
    };
    table.to_text(0) + &more + "\n"
}
