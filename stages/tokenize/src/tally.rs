//! Counts of what came of the rows, and the first places of those that were left out.

use std::collections::BTreeMap;

use pipe_records::{DataFile, Unit};
use pipe_stage::Context;

use crate::{encode::Ends, row::Reason, shapes::Shapes};

/// Places that are named for each reason.
const PLACES: usize = 5;

/// Where a row stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// The index of its file.
    pub(crate) file: usize,
    /// Its number in the file, from 1.
    pub(crate) number: u64,
}

impl Place {
    /// `data.jsonl:7`, or `data.parquet row 7` where there are no lines.
    pub(crate) fn name(self, files: &[DataFile]) -> String {
        let file = &files[self.file];
        match file.format.unit() {
            Unit::Line => format!("{}:{}", file.name, self.number),
            Unit::Row => format!("{} row {}", file.name, self.number),
        }
    }
}

/// What came of the rows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    pub(crate) truncated: u64,
    pub(crate) open_ended: u64,
    pub(crate) shapes: Shapes,
    /// Rows whose turns end with a token that the loss counts, that `max_length` cuts off, that is not there.
    ends: [u64; 3],
    /// Special tokens that stand in rows' own text.
    special_tokens: u64,
    /// How many rows have some, and the first places.
    special_rows: (u64, Vec<String>),
    bad: BTreeMap<Reason, (u64, Vec<String>)>,
}

impl Tally {
    pub(crate) fn bad(&mut self, reason: Reason, place: String) {
        add(self.bad.entry(reason).or_default(), place);
    }

    pub(crate) fn ends(&mut self, ends: Ends) {
        let index = match ends {
            Ends::Any => return,
            Ends::Trained => 0,
            Ends::Cut => 1,
            Ends::Missing => 2,
        };
        self.ends[index] += 1;
    }

    /// Whether there are turns, and the loss counts the end of none; and then whether `max_length` is why.
    pub(crate) fn never_ends(&self) -> Option<bool> {
        let [trained, cut, missing] = self.ends;
        (trained == 0 && cut + missing > 0).then_some(cut > 0)
    }

    pub(crate) fn special_in_text(&mut self, tokens: u64, place: impl FnOnce() -> String) {
        if tokens > 0 {
            self.special_tokens += tokens;
            add(&mut self.special_rows, place());
        }
    }

    /// `3 special tokens stand in the text of 2 rows (data.jsonl:1, data.jsonl:7)`; `None` if there are none.
    pub(crate) fn describe_special(&self) -> Option<String> {
        let (tokens, places) = (self.special_tokens, self.special_rows.1.join(", "));
        let (rows, more) = (self.special_rows.0, more(&self.special_rows));
        (tokens > 0).then(|| format!("{tokens} special tokens stand in the text of {rows} rows ({places}{more})"))
    }

    pub(crate) fn bad_rows(&self) -> u64 {
        self.bad.values().map(|(count, _)| count).sum()
    }

    /// The counts for a sentence: `; broken_json: 7 (data.jsonl:2, data.jsonl:5, ...)`.
    pub(crate) fn describe(&self) -> String {
        let parts = self.bad.iter().map(|(reason, bad)| format!("; {}: {}", reason.name(), places(bad)));
        parts.collect()
    }

    pub(crate) fn report(&self, context: &Context) {
        context.figure("rows", self.rows);
        context.figure("rows_truncated", self.truncated);
        context.figure("rows_bad", self.bad_rows());
        if self.special_tokens > 0 {
            context.figure("special_tokens_in_text", self.special_tokens);
            context.figure("rows_with_special_tokens_in_text", places(&self.special_rows));
        }
        for (reason, bad) in &self.bad {
            context.figure(&format!("rows_bad_{}", reason.name()), places(bad));
        }
    }
}

/// Counts a row, and keeps its place if it is among the first.
fn add((count, places): &mut (u64, Vec<String>), place: String) {
    *count += 1;
    if places.len() < PLACES {
        places.push(place);
    }
}

fn places(rows: &(u64, Vec<String>)) -> String {
    format!("{} ({}{})", rows.0, rows.1.join(", "), more(rows))
}

fn more((count, places): &(u64, Vec<String>)) -> &'static str {
    if *count > places.len() as u64 { ", ..." } else { "" }
}
