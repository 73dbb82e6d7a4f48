//! Counts of what came of the rows, and the first places of those that were left out.

use std::collections::BTreeMap;

use pipe_stage::Context;

use crate::{
    lines::{DataFile, Line},
    row::Reason,
};

/// Places that are named for each reason.
const PLACES: usize = 5;

/// What came of the rows.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    pub(crate) truncated: u64,
    pub(crate) open_ended: u64,
    bad: BTreeMap<Reason, (u64, Vec<String>)>,
}

impl Tally {
    pub(crate) fn bad(&mut self, reason: Reason, file: &DataFile, line: &Line) {
        let (count, places) = self.bad.entry(reason).or_default();
        *count += 1;
        if places.len() < PLACES {
            places.push(format!("{}:{}", file.name, line.number));
        }
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
        for (reason, bad) in &self.bad {
            context.figure(&format!("rows_bad_{}", reason.name()), places(bad));
        }
    }
}

fn places((count, places): &(u64, Vec<String>)) -> String {
    let more = if *count > places.len() as u64 { ", ..." } else { "" };
    format!("{count} ({}{more})", places.join(", "))
}
