//! Counts of what was dropped and shortened, as figures and in words.

use pipe_samples::Totals;
use pipe_stage::Context;

use crate::{config::Config, near::Clusters, near::Found, patterns};

/// Near-duplicates that are named.
const PLACES: usize = 5;

/// Why a sample was dropped. In the order in which they are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reason {
    TooShort,
    TooLong,
    Unlabelled,
    Duplicate,
    /// By its place among the patterns.
    Pattern(usize),
    NearDuplicate,
}

/// What came of the samples.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) rows: u64,
    too_short: u64,
    too_long: u64,
    unlabelled: u64,
    duplicate: u64,
    patterns: Vec<(String, u64)>,
    near_duplicate: u64,
    near_places: Vec<String>,
    tokens_dropped: u64,
    rows_truncated: u64,
    tokens_truncated: u64,
}

impl Tally {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            rows: 0,
            too_short: 0,
            too_long: 0,
            unlabelled: 0,
            duplicate: 0,
            patterns: patterns::names(config).into_iter().map(|name| (name, 0)).collect(),
            near_duplicate: 0,
            near_places: Vec::new(),
            tokens_dropped: 0,
            rows_truncated: 0,
            tokens_truncated: 0,
        }
    }

    pub(crate) fn drop(&mut self, reason: Reason, tokens: usize) {
        self.tokens_dropped += tokens as u64;
        *match reason {
            Reason::TooShort => &mut self.too_short,
            Reason::TooLong => &mut self.too_long,
            Reason::Unlabelled => &mut self.unlabelled,
            Reason::Duplicate => &mut self.duplicate,
            Reason::Pattern(index) => &mut self.patterns[index].1,
            Reason::NearDuplicate => &mut self.near_duplicate,
        } += 1;
    }

    pub(crate) fn near(&mut self, row: u64, found: &Found) {
        if self.near_places.len() < PLACES {
            self.near_places.push(format!("row {row} like row {} ({:.2})", found.row, found.similarity));
        }
    }

    pub(crate) fn truncate(&mut self, tokens: usize) {
        self.rows_truncated += u64::from(tokens > 0);
        self.tokens_truncated += tokens as u64;
    }

    /// Each count with the name of its figure and its words.
    fn counts(&self, config: &Config) -> Vec<(String, u64, String)> {
        let max_length = config.max_length.unwrap_or_default();
        let mut counts = vec![
            ("dropped_too_short".into(), self.too_short, format!("shorter than min_length {}", config.min_length)),
            ("dropped_too_long".into(), self.too_long, format!("longer than max_length {max_length}")),
            ("dropped_unlabelled".into(), self.unlabelled, "with no token for the loss (drop_unlabelled)".into()),
            ("dropped_duplicate".into(), self.duplicate, "duplicates".into()),
        ];
        for (name, count) in &self.patterns {
            counts.push((format!("dropped_by {name}"), *count, format!("by {name}")));
        }
        if config.near_dedup.is_some() {
            counts.push(("dropped_near_duplicate".into(), self.near_duplicate, "near-duplicates".into()));
        }
        counts
    }

    /// The counts of an empty result: `12 shorter than min_length 32, 3 longer than max_length 384`.
    pub(crate) fn describe(&self, config: &Config) -> String {
        let counts = self.counts(config).into_iter().filter(|(_, count, _)| *count > 0);
        counts.map(|(_, count, words)| format!("{count} {words}")).collect::<Vec<_>>().join(", ")
    }

    pub(crate) fn report(&self, config: &Config, kept: Totals, clusters: Option<&Clusters>, context: &Context) {
        context.figure("rows", self.rows);
        context.figure("rows_kept", kept.rows);
        for (name, count, _) in self.counts(config) {
            context.figure(&name, count);
        }
        context.figure("share_dropped", share(self.rows - kept.rows, self.rows));
        if let Some(clusters) = clusters {
            context.figure("near_duplicate_clusters", clusters.count);
            context.figure("near_duplicate_largest_cluster", clusters.largest);
            if !self.near_places.is_empty() {
                let more = if self.near_duplicate > self.near_places.len() as u64 { ", ..." } else { "" };
                context.figure("near_duplicate_places", format!("{}{more}", self.near_places.join(", ")));
            }
        }
        if config.max_length.is_some() {
            context.figure("rows_truncated", self.rows_truncated);
            context.figure("share_truncated", share(self.rows_truncated, self.rows));
            context.figure("tokens_truncated", self.tokens_truncated);
        }
        context.figure("tokens_kept", kept.tokens);
        context.figure("tokens_dropped", self.tokens_dropped);
        context.figure("tokens_trained", kept.trained_tokens);
    }
}

/// With four digits behind the point.
fn share(part: u64, whole: u64) -> f64 {
    (part as f64 / whole.max(1) as f64 * 1e4).round() / 1e4
}
