//! Counts of what came of the rows, and the first places of those that were left out.

use std::collections::BTreeMap;

use pipe_records::{DataFile, Unit};
use pipe_stage::Context;

use crate::{
    Config,
    augment::Drawn,
    encode::{Ends, Length},
    row::Reason,
    shapes::Shapes,
};

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
    truncated: u64,
    tokens_truncated: u64,
    /// Rows of which `max_length` left nothing that the loss counts.
    pub(crate) untrained: u64,
    pub(crate) too_long: u64,
    system_prompts: Vec<u64>,
    own_system_prompt: u64,
    prompt_templates: Vec<u64>,
    pub(crate) open_ended: u64,
    pub(crate) shapes: Shapes,
    /// Rows whose turns end with a token that the loss counts, that `max_length` cuts off, that is not there.
    ends: [u64; 3],
    /// Special tokens that stand in rows' own text.
    special_tokens: u64,
    /// How many rows have some, and the first places.
    special_rows: Places,
    bad: BTreeMap<Reason, Places>,
}

/// A number of rows, and the first places, each named once however often the data is gone through.
#[derive(Debug, Default)]
struct Places {
    count: u64,
    first: Vec<String>,
    more: bool,
}

impl Tally {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            system_prompts: vec![0; config.system_prompts.len()],
            prompt_templates: vec![0; config.prompt_templates.len()],
            ..Self::default()
        }
    }

    pub(crate) fn drawn(&mut self, drawn: Drawn) {
        let add = |counts: &mut [u64], index: Option<usize>| {
            if let Some(count) = index.and_then(|index| counts.get_mut(index)) {
                *count += 1;
            }
        };
        add(&mut self.system_prompts, drawn.system_prompt);
        add(&mut self.prompt_templates, drawn.prompt_template);
        self.own_system_prompt += u64::from(drawn.own_system_prompt);
    }

    /// The field whose texts no row drew.
    pub(crate) fn never_drawn(&self) -> Option<&'static str> {
        let fields = [("system_prompts", &self.system_prompts), ("prompt_templates", &self.prompt_templates)];
        let never = |counts: &[u64]| !counts.is_empty() && counts.iter().all(|count| *count == 0);
        fields.into_iter().find(|(_, counts)| never(counts)).map(|(field, _)| field)
    }

    pub(crate) fn length(&mut self, length: Length) {
        match length {
            Length::Fits => {}
            Length::Truncated { tokens, untrained } => {
                self.truncated += 1;
                self.tokens_truncated += tokens;
                self.untrained += u64::from(untrained);
            }
            Length::TooLong => self.too_long += 1,
        }
    }

    pub(crate) fn bad(&mut self, reason: Reason, place: String) {
        self.bad.entry(reason).or_default().add(place);
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
            self.special_rows.add(place());
        }
    }

    /// `3 special tokens stand in the text of 2 rows (data.jsonl:1, data.jsonl:7)`; `None` if there are none.
    pub(crate) fn describe_special(&self) -> Option<String> {
        let (tokens, rows) = (self.special_tokens, &self.special_rows);
        (tokens > 0)
            .then(|| format!("{tokens} special tokens stand in the text of {} rows ({})", rows.count, rows.first()))
    }

    pub(crate) fn bad_rows(&self) -> u64 {
        self.bad.values().map(|bad| bad.count).sum()
    }

    /// The counts for a sentence: `; broken_json: 7 (data.jsonl:2, data.jsonl:5, ...)`.
    pub(crate) fn describe(&self) -> String {
        let parts = self.bad.iter().map(|(reason, bad)| format!("; {}: {}", reason.name(), bad.told()));
        parts.collect()
    }

    /// `; 3 of 7 have more than 384 tokens`, or nothing.
    pub(crate) fn too_long_told(&self, max_length: u64) -> String {
        let (too_long, rows) = (self.too_long, self.rows);
        if too_long == 0 { String::new() } else { format!("; {too_long} of {rows} have more than {max_length} tokens") }
    }

    pub(crate) fn report(&self, context: &Context) {
        context.figure("rows", self.rows);
        context.figure("rows_truncated", self.truncated);
        context.figure("tokens_truncated", self.tokens_truncated);
        context.figure("rows_dropped_too_long", self.too_long);
        if self.untrained > 0 {
            context.figure("rows_truncated_to_nothing_trained", self.untrained);
        }
        if !self.system_prompts.is_empty() {
            context.figure("system_prompts_drawn", self.system_prompts.clone());
            context.figure("rows_with_own_system_prompt", self.own_system_prompt);
        }
        if !self.prompt_templates.is_empty() {
            context.figure("prompt_templates_drawn", self.prompt_templates.clone());
        }
        context.figure("rows_bad", self.bad_rows());
        if self.special_tokens > 0 {
            context.figure("special_tokens_in_text", self.special_tokens);
            context.figure("rows_with_special_tokens_in_text", self.special_rows.told());
        }
        for (reason, bad) in &self.bad {
            context.figure(&format!("rows_bad_{}", reason.name()), bad.told());
        }
    }
}

impl Places {
    /// Counts a row, and keeps its place if it is among the first.
    fn add(&mut self, place: String) {
        self.count += 1;
        if self.first.contains(&place) {
            return;
        }
        if self.first.len() < PLACES {
            self.first.push(place);
        } else {
            self.more = true;
        }
    }

    /// `data.jsonl:2, data.jsonl:5, ...`
    fn first(&self) -> String {
        format!("{}{}", self.first.join(", "), if self.more { ", ..." } else { "" })
    }

    /// `7 (data.jsonl:2, data.jsonl:5, ...)`
    fn told(&self) -> String {
        format!("{} ({})", self.count, self.first())
    }
}
