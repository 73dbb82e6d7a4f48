//! The fields of `with:` of a `split` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The share held out where neither field says one.
const DEFAULT_HELD_OUT: f64 = 0.05;

/// How a `split` stage divides samples.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The share of samples to hold out, above 0 and below 1, rounded to whole samples but at least one. Not with
    /// `held_out_rows`. Default 0.05.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub held_out: Option<f64>,
    /// The number of samples to hold out, 1 or more. Not with `held_out`. Default: what `held_out` comes to.
    #[schemars(range(min = 1))]
    pub held_out_rows: Option<u64>,
    /// Seeds the choice, 0 to 2^64 - 1. Default 42.
    pub seed: u64,
}

impl Config {
    /// How many of `rows` samples to hold out.
    pub(crate) fn held_out_of(&self, rows: u64) -> u64 {
        // Exact: no file has 2^53 rows.
        let share = || (rows as f64 * self.held_out.unwrap_or(DEFAULT_HELD_OUT)).round() as u64;
        self.held_out_rows.unwrap_or_else(|| share().max(1))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { held_out: None, held_out_rows: None, seed: 42 }
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Some(held_out) = self.held_out {
            problems.require(held_out > 0.0 && held_out < 1.0, "held_out", "must lie between 0 and 1, both excluded");
        }
        problems.require(self.held_out_rows != Some(0), "held_out_rows", "must be at least 1");
        if self.held_out.is_some() && self.held_out_rows.is_some() {
            problems.at_with_help("held_out_rows", "held_out says it already", "give one of the two");
        }
    }
}
