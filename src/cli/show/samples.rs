//! A sample as the model sees it, and how long all of them are.

use std::path::Path;

use anstream::ColorChoice;
use owo_colors::{OwoColorize, Style};
use pipe_samples::{Reader, Sample};
use serde_json::{Value, json};

use super::{
    Shown, View, WIDTH,
    histogram::Lengths,
    tokens::{self, Piece},
};
use crate::{
    cli::{
        CliError,
        table::{Cell, Table},
    },
    report,
    runs::StageRun,
};

pub(super) fn view(shown: &Shown<'_>, folder: &Path, row: usize, ids: bool) -> Result<View, CliError> {
    let damaged = |error: pipe_samples::Error| {
        CliError::usage(error.to_string(), "run the pipeline again to make it new".to_owned())
    };
    let lengths: Vec<u32> = pipe_samples::Lengths::open(folder).and_then(Iterator::collect).map_err(damaged)?;
    let rows = lengths.len();
    let name = shown.name();
    if row >= rows {
        let message = format!("`{name}` has no row {row}: it has {}", report::plural(rows, "row"));
        let help = match rows {
            0 => "see why with `pipe log`".to_owned(),
            rows => format!("rows are counted from 0: the last one is {}", rows - 1),
        };
        return Err(CliError::usage(message, help));
    }
    let sample = Reader::open(folder).map_err(damaged)?.nth(row).transpose().map_err(damaged)?.unwrap_or_default();
    let tokenizer = shown.tokenizer();
    let pieces = tokens::pieces(&sample, tokenizer.as_ref());
    let tokens: u64 = lengths.iter().map(|length| u64::from(*length)).sum();
    let trained = match shown.run.stages[shown.stage].figures.get("tokens_trained").and_then(Value::as_u64) {
        Some(trained) => trained,
        None => trained_tokens(folder).map_err(damaged)?,
    };
    let max_length = shown.configured("max_length");
    let lengths = Lengths::new(lengths);
    let history = history(shown);
    let mut text = heading(&name, shown, row, rows, &sample);
    let colours = anstream::stdout().current_choice() != ColorChoice::Never;
    let width = terminal_size::terminal_size().map_or(WIDTH, |(width, _)| usize::from(width.0));
    if tokenizer.is_none() {
        text += "  no tokenizer was found among the stages before it: these are ids\n";
    }
    text += &if ids { list(&pieces, colours) } else { tokens::text(&pieces, width, colours) };
    text += &summary(&lengths, rows, tokens, trained);
    text += &lengths.bars(max_length);
    text += &told(&history);
    let json = json!({
        "stage": shown.stage, "output": shown.output, "run": shown.run.id, "holds": "samples",
        "rows": rows, "tokens": tokens, "tokens_trained": trained, "max_length": max_length, "lengths": lengths,
        "stages": history.iter().map(Step::to_json).collect::<Vec<_>>(),
        "row": { "index": row, "length": sample.input_ids.len(), "trained": sample.view().trained(),
            "decoded": tokenizer.is_some(), "tokens": pieces },
    });
    Ok(View { text, json })
}

fn trained_tokens(folder: &Path) -> Result<u64, pipe_samples::Error> {
    Reader::open(folder)?.try_fold(0, |sum, sample| Ok(sum + sample?.view().trained() as u64))
}

fn heading(name: &str, shown: &Shown<'_>, row: usize, rows: usize, sample: &Sample) -> String {
    let (length, trained) = (sample.input_ids.len(), sample.view().trained());
    let of = report::count(rows as u64);
    let what = format!("row {row} of {of} · {} · {trained} trained", report::plural(length, "token"));
    format!("{} {}\n{what}\n\n", name.bold(), format!("run {}", shown.run.id).dimmed())
}

/// One line a token, for those who look for one.
fn list(pieces: &[Piece], colours: bool) -> String {
    let mut table = Table::default();
    table.row(["token", "id", "trained", "text"].map(|heading| Cell::from(heading).style(Style::new().dimmed())));
    let mut at = 0;
    for (index, piece) in pieces.iter().enumerate() {
        let ids: Vec<String> = piece.ids.iter().map(u32::to_string).collect();
        let text = tokens::visible(&piece.text).replace('\n', "");
        let style = if colours { tokens::style(piece, index) } else { Style::new() };
        table.row([
            Cell::from(at.to_string()).right(),
            Cell::from(ids.join(" ")).right(),
            Cell::from(if piece.trained { "yes" } else { "" }),
            Cell::from(text).style(style),
        ]);
        at += piece.ids.len();
    }
    table.to_text(2)
}

fn summary(lengths: &Lengths, rows: usize, tokens: u64, trained: u64) -> String {
    let share = trained as f64 / (tokens.max(1)) as f64;
    let Lengths { p50, p90, p99, max, .. } = lengths;
    format!(
        "\n{} rows · {} tokens · {} trained ({:.1} %)\nlength  p50 {p50} · p90 {p90} · p99 {p99} · max {max}\n",
        report::count(rows as u64),
        report::count(tokens),
        report::count(trained),
        share * 100.0
    )
}

/// What a stage on the way did to the number of rows, as far as it said.
struct Step<'a> {
    stage: &'a str,
    kind: &'a str,
    rows: Option<u64>,
    kept: Option<u64>,
    truncated: Option<u64>,
}

impl Step<'_> {
    fn dropped(&self) -> Option<u64> {
        self.rows?.checked_sub(self.kept?)
    }

    fn share(&self, part: Option<u64>) -> Option<f64> {
        Some(part? as f64 / self.rows?.max(1) as f64)
    }

    fn to_json(&self) -> Value {
        json!({ "stage": self.stage, "kind": self.kind, "rows": self.rows, "kept": self.kept,
            "dropped": self.dropped(), "share_dropped": self.share(self.dropped()), "truncated": self.truncated,
            "share_truncated": self.share(self.truncated) })
    }
}

/// The stages that made the samples what they are, the first one first.
fn history<'a>(shown: &'a Shown<'_>) -> Vec<Step<'a>> {
    let step = |stage: &'a str| {
        let run = shown.run.stages.get(stage)?;
        if run.kind == "mix" {
            // By source; what comes again was kept once.
            let sum = |what: &str| {
                let of_sources = run.figures.iter().filter(|(name, _)| name.strip_suffix(what).is_some());
                of_sources.map(|(_, value)| value.as_u64()).sum::<Option<u64>>()
            };
            let kept = sum(".rows_taken").zip(sum(".rows_repeated")).map(|(taken, again)| taken.saturating_sub(again));
            return Some(Step { stage, kind: &run.kind, rows: sum(".rows"), kept, truncated: None });
        }
        let kept = figure(run, "rows_kept").or_else(|| figure(run, "samples"));
        let truncated = figure(run, "rows_truncated");
        let known = kept.is_some() || truncated.is_some();
        known.then(|| Step { stage, kind: &run.kind, rows: figure(run, "rows"), kept, truncated })
    };
    let mut steps: Vec<Step<'_>> = shown.lineage().into_iter().filter_map(step).collect();
    steps.reverse();
    steps
}

fn figure(run: &StageRun, name: &str) -> Option<u64> {
    run.figures.get(name)?.as_u64()
}

fn told(history: &[Step<'_>]) -> String {
    if history.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    table.row(["stage", "rows", "dropped", "truncated"].map(|text| Cell::from(text).style(Style::new().dimmed())));
    for step in history {
        let counted = |part: Option<u64>| match (part, step.share(part)) {
            (Some(count), Some(share)) => format!("{} ({:.1} %)", report::count(count), share * 100.0),
            _ => String::new(),
        };
        table.row([
            Cell::from(step.stage),
            Cell::from(step.rows.map(report::count).unwrap_or_default()).right(),
            Cell::from(counted(step.dropped())).right(),
            Cell::from(counted(step.truncated)).right(),
        ]);
    }
    format!("\n{}", table.to_text(0))
}
