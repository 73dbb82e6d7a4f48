//! `pipe cache verify`: read everything in the cache, and name what is damaged.

use std::{
    collections::{BTreeMap, BTreeSet},
    process::ExitCode,
    time::Duration,
};

use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use owo_colors::OwoColorize;
use pipe_stage::{Digest, manifest::escape};
use serde::Serialize;
use serde_json::json;

use super::{home, rebuild::Rebuilder};
use crate::{
    cache::{BadRecord, Flawed, Harm, Health, Home, Link},
    cli::{CliError, Exit, Format, get::say_that_it_waits, pipeline::print, pipeline::print_json, typed::word},
    report::{bytes, count, plural},
    runs::{RunId, Runs},
};

/// The text names so many of the files that an object is, and so many stages that take it.
const NAMED: usize = 5;

/// Arguments of `pipe cache verify`.
#[derive(Args)]
pub(in crate::cli) struct Verify {
    /// Set damaged objects and records aside, so that the stages that made them run again when they are needed, and
    /// say what cannot be made again
    #[arg(long)]
    repair: bool,
    /// How to write the result
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

/// What is wrong with one object, and what is to be done about it.
#[derive(Serialize)]
struct Damage {
    digest: Digest,
    harm: &'static str,
    why: Option<String>,
    files: Vec<File>,
    /// The stages that took an artifact which it is part of.
    taken_by: BTreeSet<String>,
    /// Whether nothing can use it any more.
    set_aside: bool,
    fate: Fate,
}

/// What an object is to an artifact.
#[derive(Serialize)]
struct File {
    artifact: Digest,
    /// `None`: the list of the artifact's files.
    file: Option<String>,
    made_by: Vec<Maker>,
}

#[derive(Serialize)]
struct Maker {
    stage: String,
    output: String,
    run: Option<String>,
    pipeline: Option<String>,
}

/// Whether it can be had again.
#[derive(Serialize)]
#[serde(rename_all = "snake_case")]
enum Fate {
    /// By running these stages of these pipeline files.
    Rebuild(BTreeSet<Stage>),
    /// Not at all, for these reasons by artifact.
    Lost(BTreeMap<Digest, String>),
    /// Nothing needs it.
    Unneeded,
}

#[derive(Serialize, PartialEq, Eq, PartialOrd, Ord)]
struct Stage {
    stage: String,
    pipeline: Option<String>,
    file: Option<String>,
}

impl Verify {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let home = home()?;
        let _in_use = home.share(say_that_it_waits)?;
        let unrecorded = artifacts_of_runs(&home);
        let health = examine(&home, &unrecorded.keys().copied().collect::<Vec<_>>())?;
        let mut rebuilder = Rebuilder::new(&home, &health.links, health.broken());
        let mut damages = Vec::new();
        for flawed in &health.flawed {
            let set_aside = match flawed.harm {
                Harm::SetAside => true,
                Harm::Damaged(_) if self.repair => flawed
                    .set_aside(&home)
                    .inspect_err(|error| tracing::warn!(digest = %flawed.digest, %error, "it cannot be set aside"))
                    .is_ok(),
                _ => false,
            };
            damages.push(damage(flawed, set_aside, &health.links, &mut rebuilder, &unrecorded));
        }
        let records_set_aside = self.repair && health.bad_records.iter().all(|bad| bad.set_aside(&home).is_ok());
        match self.format {
            Format::Text => print(&text(&health, &damages, self.repair, records_set_aside))?,
            Format::Json => print_json(&json!({
                "objects": health.objects, "bytes": health.bytes, "records": health.links.len(),
                "damages": damages, "bad_records": health.bad_records.iter().map(bad_record).collect::<Vec<_>>(),
            }))?,
        }
        let whole = damages.is_empty() && health.bad_records.is_empty();
        Ok(if whole { Exit::Done } else { Exit::Code(ExitCode::from(1)) })
    }
}

fn bad_record(bad: &BadRecord) -> serde_json::Value {
    json!({ "file": bad.name, "why": bad.why })
}

/// The artifacts that runs say they made or found, with the stage and the run.
fn artifacts_of_runs(home: &Home) -> BTreeMap<Digest, (RunId, String)> {
    let runs = Runs::new(home);
    let mut artifacts = BTreeMap::new();
    for run in runs.ids().iter().filter_map(|id| runs.get(id)) {
        for (name, stage) in &run.stages {
            for artifact in stage.outputs.values() {
                artifacts.entry(*artifact).or_insert_with(|| (run.id.clone(), name.clone()));
            }
        }
    }
    artifacts
}

fn examine(home: &Home, others: &[Digest]) -> Result<Health, CliError> {
    // Falls silent where standard error is no terminal.
    let bar = ProgressBar::new_spinner();
    if let Ok(style) = ProgressStyle::with_template("{spinner:.cyan} reading the cache: {bytes} at {bytes_per_sec}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    let health = Health::examine(home, others, &|bytes| bar.inc(bytes))?;
    bar.finish_and_clear();
    Ok(health)
}

fn damage(
    flawed: &Flawed,
    set_aside: bool,
    links: &[Link],
    rebuilder: &mut Rebuilder<'_>,
    unrecorded: &BTreeMap<Digest, (RunId, String)>,
) -> Damage {
    let (harm, why) = match &flawed.harm {
        Harm::Missing => ("missing", None),
        Harm::SetAside => ("missing", Some("it was damaged, and is in quarantine".to_owned())),
        Harm::Damaged(why) => ("damaged", Some(why.clone())),
        Harm::Forged(why) => ("forged", Some(why.clone())),
    };
    let artifacts: BTreeSet<Digest> = flawed.parts.iter().map(|(artifact, _)| *artifact).collect();
    let takes = |link: &&Link| link.inputs.iter().any(|input| artifacts.contains(input));
    Damage {
        digest: flawed.digest,
        harm,
        why,
        files: flawed.parts.iter().map(|(artifact, file)| part(artifact, file, rebuilder, unrecorded)).collect(),
        taken_by: links.iter().filter(takes).map(|link| link.stage.clone()).collect(),
        set_aside,
        fate: fate(&artifacts, rebuilder),
    }
}

fn part(
    artifact: &Digest,
    file: &Option<String>,
    rebuilder: &mut Rebuilder<'_>,
    unrecorded: &BTreeMap<Digest, (RunId, String)>,
) -> File {
    let mut made_by = Vec::new();
    for link in rebuilder.makers(artifact) {
        let pipeline = rebuilder.run(link).map(|run| run.pipeline.clone());
        let outputs = link.outputs.iter().filter(|(_, made)| *made == artifact);
        made_by.extend(outputs.map(|(output, _)| Maker {
            stage: link.stage.clone(),
            output: output.clone(),
            run: link.run.clone(),
            pipeline: pipeline.clone(),
        }));
    }
    if let (true, Some((run, stage))) = (made_by.is_empty(), unrecorded.get(artifact)) {
        let run = Some(run.to_string());
        made_by.push(Maker { stage: stage.clone(), output: "out".to_owned(), run, pipeline: None });
    }
    File { artifact: *artifact, file: file.clone(), made_by }
}

fn fate(artifacts: &BTreeSet<Digest>, rebuilder: &mut Rebuilder<'_>) -> Fate {
    let (mut stages, mut lost) = (BTreeSet::new(), BTreeMap::new());
    for artifact in artifacts {
        match rebuilder.way(artifact) {
            Ok(link) => {
                let run = rebuilder.run(link);
                let pipeline = run.map(|run| run.pipeline.clone());
                let file = run.map(|run| run.file.display().to_string());
                stages.insert(Stage { stage: link.stage.clone(), pipeline, file });
            }
            Err(why) => drop(lost.insert(*artifact, why)),
        }
    }
    match (stages.is_empty(), lost.is_empty()) {
        (true, true) => Fate::Unneeded,
        // One of the artifacts brings the bytes back, and with them the others that hold the same file.
        (false, _) => Fate::Rebuild(stages),
        (true, false) => Fate::Lost(lost),
    }
}

fn text(health: &Health, damages: &[Damage], repair: bool, records_set_aside: bool) -> String {
    let mut text = String::new();
    for damage in damages {
        text += &describe(damage, repair);
    }
    for bad in &health.bad_records {
        let name = escape(&bad.name);
        let gone = if records_set_aside { "; it is in quarantine now" } else { "" };
        text += &format!("{} action record {name}: {}{gone}\n", "damaged".red(), bad.why);
    }
    let read = format!(
        "{} objects ({}) and {} read",
        count(health.objects as u64),
        bytes(health.bytes),
        plural(health.links.len(), "action record")
    );
    if damages.is_empty() && health.bad_records.is_empty() {
        return format!("{} {read}\n", "whole:".green());
    }
    let lost = damages.iter().filter(|damage| matches!(damage.fate, Fate::Lost(_))).count();
    let mut parts = vec![format!("{} not as they should be", plural(damages.len(), "object"))];
    if lost > 0 {
        parts.push(format!("{lost} of them lost"));
    }
    if !health.bad_records.is_empty() {
        parts.push(format!("{} damaged", plural(health.bad_records.len(), "action record")));
    }
    text += &format!("\n{read}: {}\n", parts.join(", "));
    let to_set_aside = damages.iter().any(|damage| damage.harm == "damaged") || !health.bad_records.is_empty();
    if to_set_aside && !repair {
        text += "`pipe cache verify --repair` sets aside what is damaged, so that it is made again when it is needed\n";
    }
    text
}

fn describe(damage: &Damage, repair: bool) -> String {
    let why = damage.why.as_ref().map_or_else(String::new, |why| format!(": {why}"));
    let mut text = format!("{} object {}{why}\n", damage.harm.red(), damage.digest.short());
    for file in damage.files.iter().take(NAMED) {
        let what = match &file.file {
            Some(file) => format!("`{}`", escape(file)),
            None => "the list of the files".to_owned(),
        };
        let makers: Vec<String> = file.made_by.iter().take(NAMED).map(maker).collect();
        let of = if makers.is_empty() { format!("artifact {}", file.artifact.short()) } else { makers.join(", ") };
        text += &format!("  {what} of {of}\n");
    }
    if damage.files.len() > NAMED {
        text += &format!("  and {} more\n", plural(damage.files.len() - NAMED, "file"));
    }
    if !damage.taken_by.is_empty() {
        let stages: Vec<String> = damage.taken_by.iter().take(NAMED).map(|stage| format!("`{stage}`")).collect();
        text += &format!("  taken by {}\n", stages.join(", "));
    }
    if repair && damage.harm == "damaged" {
        text += if damage.set_aside { "  it is in quarantine now\n" } else { "  it cannot be moved to quarantine\n" };
    }
    text + &match &damage.fate {
        Fate::Unneeded => "  nothing needs it\n".to_owned(),
        Fate::Rebuild(stages) => stages
            .iter()
            .map(|Stage { stage, file, .. }| match file {
                Some(file) => format!("  can be made again: pipe run {} {stage}\n", word(file)),
                None => format!("  can be made again by `{stage}`\n"),
            })
            .collect(),
        Fate::Lost(reasons) => {
            let reasons: BTreeSet<&String> = reasons.values().collect();
            reasons.into_iter().map(|why| format!("  {}: {why}\n", "lost".red().bold())).collect()
        }
    }
}

fn maker(maker: &Maker) -> String {
    let Maker { stage, output, run, pipeline } = maker;
    let output = if output == "out" { String::new() } else { format!(".{output}") };
    match (run, pipeline) {
        (Some(run), Some(pipeline)) => format!("`{stage}{output}` (run {run} of {pipeline})"),
        (Some(run), None) => format!("`{stage}{output}` (run {run})"),
        _ => format!("`{stage}{output}`"),
    }
}
