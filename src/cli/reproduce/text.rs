//! The result of `pipe reproduce` for people.

use owo_colors::OwoColorize;
use serde_json::Value;

use crate::{
    cli::table::{Cell, Table},
    report::{self, measurement, plural, printable},
    reproduce::{FileChange, FileDetail, FileSide, Report, StageReport, StageVerdict, TensorChange, Verdict},
};

/// As many tensors, values and files are shown of a longer list.
const SHOWN: usize = 8;

/// Longer values are cut, in characters.
const VALUE_WIDTH: usize = 28;

/// The whole report. `accepted`: the user said up to which tolerance figures may differ.
pub(super) fn of(report: &Report, accepted: bool) -> String {
    let mut text = String::new();
    let width = report.stages.iter().map(|stage| report::width(&stage.stage)).max().unwrap_or(0);
    for stage in &report.stages {
        let word = match stage.verdict {
            StageVerdict::Same => "same".green().to_string(),
            StageVerdict::WithinTolerance => "close".yellow().to_string(),
            StageVerdict::Differs => "differs".red().to_string(),
            StageVerdict::Follows => "follows".yellow().to_string(),
            StageVerdict::NotMade => "not made".red().to_string(),
            StageVerdict::NotRecorded => "-".to_owned(),
        };
        let padding = " ".repeat("not made".len() - plain_length(stage.verdict));
        let digests: Vec<String> = stage
            .outputs
            .iter()
            .map(|(output, digests)| {
                let named = if output == "out" { String::new() } else { format!("{} ", printable(output)) };
                match digests.now {
                    Some(now) if now == digests.recorded => format!("{named}{}", now.short()),
                    Some(now) => format!("{named}{} -> {}", digests.recorded.short(), now.short()),
                    None => format!("{named}{} -> nothing", digests.recorded.short()),
                }
            })
            .collect();
        text += format!("{word}{padding}  {}  {}", report::padded(&stage.stage, width), digests.join(", ")).trim_end();
        text.push('\n');
    }
    text.push('\n');
    let told = report.stages.iter().filter(|stage| match &report.first_difference {
        Some(first) => stage.stage == *first,
        None => matches!(stage.verdict, StageVerdict::WithinTolerance | StageVerdict::NotMade),
    });
    for stage in told {
        text += &story(stage, report.first_difference.is_some());
        text.push('\n');
    }
    text + &conclusion(report, accepted)
}

fn plain_length(verdict: StageVerdict) -> usize {
    match verdict {
        StageVerdict::Same => 4,
        StageVerdict::WithinTolerance => 5,
        StageVerdict::Differs | StageVerdict::Follows => 7,
        StageVerdict::NotMade => 8,
        StageVerdict::NotRecorded => 1,
    }
}

fn conclusion(report: &Report, accepted: bool) -> String {
    let count = |verdict| report.stages.iter().filter(|stage| stage.verdict == verdict).count();
    let tolerance = report.tolerance;
    match report.verdict {
        Verdict::Equal => format!("equal: {}, every digest as recorded\n", plural(count(StageVerdict::Same), "stage")),
        Verdict::WithinTolerance if accepted => format!(
            "within {tolerance}: {} equal, {} computed on another device with figures within the tolerance\n",
            plural(count(StageVerdict::Same), "stage"),
            count(StageVerdict::WithinTolerance)
        ),
        Verdict::WithinTolerance => format!(
            "not equal: another device computed it, and bytes cannot be compared; all figures are within {tolerance} of the \
             record (to accept that, say --tolerance {tolerance})\n"
        ),
        Verdict::Differs => format!(
            "not equal: {} as recorded, {} not\n",
            plural(count(StageVerdict::Same), "stage"),
            report.stages.len() - count(StageVerdict::Same) - count(StageVerdict::NotRecorded)
        ),
        Verdict::Unfinished => format!(
            "not reproduced: {} as recorded, {} not made\n",
            plural(count(StageVerdict::Same), "stage"),
            count(StageVerdict::NotMade)
        ),
    }
}

fn story(stage: &StageReport, first: bool) -> String {
    let kind = printable(&stage.kind);
    let mut text = match stage.verdict {
        StageVerdict::NotMade => format!("`{}` ({kind}) was not made\n", stage.stage),
        _ if first => format!("the first stage that differs is `{}` ({kind})\n", stage.stage),
        _ => format!("`{}` ({kind})\n", stage.stage),
    };
    for line in stage.notes.iter().chain(&stage.error) {
        text += &format!("  {}\n", printable(line));
    }
    let rows: Vec<[String; 4]> = stage
        .figures
        .iter()
        .map(|change| {
            [printable(&change.name), value(&change.recorded), value(&change.now), difference(change.difference)]
        })
        .collect();
    text += &table("figures", "figure", &rows, rows.len());
    for output in stage.outputs.values() {
        for file in output.files.iter().take(SHOWN) {
            text += &file_story(file);
        }
        if output.files.len() > SHOWN {
            text += &format!("  and {} more\n", plural(output.files.len() - SHOWN, "file"));
        }
    }
    text
}

fn file_story(file: &FileChange) -> String {
    let path = printable(&pipe_stage::manifest::escape(&file.path));
    let side = |side: &FileSide| format!("{} ({})", side.digest.short(), report::bytes(side.size));
    match (&file.recorded, &file.now) {
        (Some(recorded), None) => format!("  {path}: gone, was {}\n", side(recorded)),
        (None, Some(now)) => format!("  {path}: new, {}\n", side(now)),
        (Some(recorded), Some(now)) if recorded.digest == now.digest => {
            let word = if now.executable { "is" } else { "is not" };
            format!("  {path}: {word} executable now\n")
        }
        (Some(recorded), Some(now)) => {
            let change = format!("{} -> {}", side(recorded), side(now));
            match &file.detail {
                None => format!("  {path}: {change}\n"),
                Some(FileDetail::Bytes { first, line }) => {
                    let line = line.map_or_else(String::new, |line| format!(", in line {line}"));
                    format!("  {path}: {change}, from byte {first} on{line}\n")
                }
                Some(FileDetail::Values(diff)) => {
                    let rows: Vec<[String; 4]> = diff
                        .shown
                        .iter()
                        .take(SHOWN)
                        .map(|change| {
                            let place = printable(&change.place);
                            [place, value(&change.recorded), value(&change.now), difference(change.difference)]
                        })
                        .collect();
                    let title = format!("{path}: values that differ: {} of {}", diff.differ, diff.values);
                    table(&title, "value", &rows, to_usize(diff.differ))
                }
                Some(FileDetail::Tensors(diff)) => tensors(&path, diff.tensors, &diff.differ),
            }
        }
        (None, None) => String::new(),
    }
}

/// Those that differ most, first.
fn tensors(path: &str, all: usize, differ: &[TensorChange]) -> String {
    let mut worst: Vec<&TensorChange> = differ.iter().collect();
    let size = |change: &TensorChange| change.relative_l2.unwrap_or(f64::INFINITY);
    worst.sort_by(|one, other| size(other).total_cmp(&size(one)));
    let mut text = format!("  {path}: tensors that differ: {} of {all}\n", differ.len());
    let mut rows =
        vec![["tensor", "type", "shape", "elements that differ", "max |diff|", "relative L2"].map(str::to_owned)];
    for change in worst.iter().take(SHOWN) {
        let [dtype, shape] =
            [either(&change.dtype, |dtype| printable(dtype)), either(&change.shape, |shape| format!("{shape:?}"))];
        let elements = change.shape[0].as_ref().map_or(0, |shape| shape.iter().product::<usize>());
        let differ = change.differ.map_or_else(|| "-".to_owned(), |differ| format!("{differ} of {elements}"));
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), measurement);
        rows.push([printable(&change.name), dtype, shape, differ, number(change.max_abs), number(change.relative_l2)]);
    }
    text += &columns(&rows);
    if differ.len() > SHOWN {
        text += &format!("    and {} more\n", plural(differ.len() - SHOWN, "tensor"));
    }
    text
}

fn either<T: PartialEq>(sides: &[Option<T>; 2], text: impl Fn(&T) -> String) -> String {
    match sides {
        [Some(one), Some(other)] if one == other => text(one),
        [one, other] => {
            let side = |side: &Option<T>| side.as_ref().map_or_else(|| "none".to_owned(), &text);
            format!("{} -> {}", side(one), side(other))
        }
    }
}

fn table(title: &str, what: &str, rows: &[[String; 4]], all: usize) -> String {
    if rows.is_empty() {
        return String::new();
    }
    let head = [what, "recorded", "now", "difference"].map(str::to_owned);
    let shown: Vec<[String; 4]> = std::iter::once(head).chain(rows.iter().take(SHOWN).cloned()).collect();
    let mut text = format!("  {title}\n{}", columns(&shown));
    if all > SHOWN {
        text += &format!("    and {} more\n", all - SHOWN);
    }
    text
}

fn columns<const N: usize>(rows: &[[String; N]]) -> String {
    let mut table = Table::default();
    for row in rows {
        table.row(row.iter().map(|cell| Cell::from(cell.as_str())));
    }
    table.to_text(4)
}

fn value(value: &Option<Value>) -> String {
    let text = match value {
        None => "none".to_owned(),
        Some(Value::String(text)) => printable(text),
        Some(value) => printable(&value.to_string()),
    };
    if text.chars().count() <= VALUE_WIDTH {
        return text;
    }
    text.chars().take(VALUE_WIDTH - 3).collect::<String>() + "..."
}

fn difference(difference: Option<f64>) -> String {
    difference.map_or_else(String::new, |difference| {
        let sign = if difference > 0.0 { "+" } else { "" };
        format!("{sign}{}", measurement(difference))
    })
}

fn to_usize(value: u64) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
