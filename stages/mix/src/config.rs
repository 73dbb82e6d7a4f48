//! The fields of `with:` of a `mix` stage.

use std::collections::{BTreeMap, BTreeSet};

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source::source_of;

/// The most often that a source may be repeated.
const MAX_REPEAT: f64 = 1e6;

/// How a `mix` stage puts its inputs together.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What to take of an input, by its name under `inputs:`; the stages of a list or a matrix are one source. Default:
    /// every sample of every input once.
    pub sources: BTreeMap<String, Source>,
    /// When to stop, where some sources end before others, as `interleave_datasets` of Hugging Face `datasets` does it.
    /// Default: `first_exhausted` if there are weights; without weights every row comes once, each source spread over
    /// the whole.
    pub stopping_strategy: Option<StoppingStrategy>,
    /// Seeds the order of the sources and the choice of rows, 0 to 2^64 - 1. Default 42.
    pub seed: u64,
}

/// What to take of one source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Source {
    /// How often it is drawn, relative to the weights of the others: any number above 0; they need not come to 1. Give
    /// one to every source or to none. Default: none.
    #[schemars(range(min = 0.0))]
    pub weight: Option<f64>,
    /// At most so many of its rows are used, 1 or more, a seeded choice among all of them. Default: no limit.
    #[schemars(range(min = 1))]
    pub max_rows: Option<u64>,
    /// How often its rows come, above 0, at most 1,000,000: 2 is every row twice, 0.5 half of the rows once, 1.5 every row
    /// once and half of them again, a seeded choice. Counts behind `max_rows`. Default 1.
    #[schemars(range(min = 0.0, max = 1e6))]
    pub repeat: Option<f64>,
}

/// When to stop, where some sources end before others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StoppingStrategy {
    /// As soon as one source has ended: nothing comes more often than `repeat` says, and rows of others are left.
    FirstExhausted,
    /// When every source has ended at least once: those that end early begin again, and no row is left.
    AllExhausted,
    /// When every source has ended: those that end early are drawn no more, and every row comes once (or `repeat`
    /// times).
    AllExhaustedWithoutReplacement,
}

impl Default for Config {
    fn default() -> Self {
        Self { sources: BTreeMap::new(), stopping_strategy: None, seed: 42 }
    }
}

impl Validate for Config {
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        let names: BTreeSet<&str> = inputs.iter().map(|input| source_of(input)).collect();
        if names.is_empty() {
            let help = "name stages that make samples: `inputs: { en: english, zh: chinese }`";
            problems.at_with_help("sources", "there is no input to mix", help);
        }
        for (name, source) in &self.sources {
            let path = |field: &str| format!("sources.{name}.{field}");
            if !names.contains(name.as_str()) {
                let known = names.iter().copied().collect::<Vec<_>>().join(", ");
                let message = format!("no input is called `{name}`");
                problems.at_with_help(&format!("sources.{name}"), message, format!("the inputs are {known}"));
            }
            if let Some(weight) = source.weight {
                problems.require(weight > 0.0 && weight.is_finite(), &path("weight"), "must be above 0");
            }
            problems.require(source.max_rows != Some(0), &path("max_rows"), "must be at least 1");
            if let Some(repeat) = source.repeat {
                let fits = repeat > 0.0 && repeat <= MAX_REPEAT;
                problems.require(fits, &path("repeat"), "must be above 0, and at most 1000000");
            }
        }
        let has_weight = |name: &&&str| self.sources.get(**name).is_some_and(|source| source.weight.is_some());
        let without: Vec<&str> = names.iter().filter(|name| !has_weight(name)).copied().collect();
        if !without.is_empty() && without.len() < names.len() {
            let message = format!("there are weights, but none for {}", without.join(", "));
            problems.at_with_help("sources", message, "give a weight to every input or to none");
        }
    }
}
