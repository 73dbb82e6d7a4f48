//! The fields of `with:` of a `filter` stage.

use std::collections::BTreeSet;

use pipe_samples::TruncationSide;
use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The input whose tokenizer gives the text back.
pub(crate) const MODEL: &str = "model";

/// Which samples a `filter` stage keeps. The rules are looked at in the order of these fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Drop samples of fewer tokens than this; 0 drops none. Default 32.
    pub min_length: u64,
    /// The most tokens that a sample may have, 1 or more; `on_too_long` says what becomes of the others. Default: no
    /// limit.
    pub max_length: Option<u64>,
    /// What becomes of samples of more than `max_length` tokens. Default `drop`.
    pub on_too_long: OnTooLong,
    /// At which side `on_too_long: truncate` takes tokens away. Default `right`.
    pub truncation_side: TruncationSide,
    /// Drop samples in which the loss counts no token: every label behind the first is -100. Default false.
    pub drop_unlabelled: bool,
    /// Drop samples whose token ids are those of an earlier sample. Default false.
    pub dedup: bool,
    /// Keep only samples whose text fits every one of these. Needs the input `model`. Default: none.
    pub keep_patterns: Vec<Pattern>,
    /// Drop samples whose text fits one of these. Needs the input `model`. Default: none.
    pub drop_patterns: Vec<Pattern>,
    /// Drop samples that are nearly the same as an earlier one that is kept. Default: none is looked for.
    pub near_dedup: Option<NearDedup>,
}

/// What becomes of samples that are too long.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTooLong {
    /// They are dropped.
    #[default]
    Drop,
    /// They lose tokens, and then meet the other rules.
    Truncate,
}

/// A rule on the text of a sample. Without a share, a text fits if the pattern is found in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pattern {
    /// A regular expression as the Rust crate `regex` reads it: `\p{Han}`, `https?://`, `(?i)as an ai`. No look-around and
    /// no back-references; the time is linear in the text.
    pub pattern: String,
    /// Of which tokens the text is looked at. Default `all`.
    #[serde(default)]
    pub part: Part,
    /// The text fits if at least this share of its characters, 0 to 1, lies in matches. Default: no lower limit.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_share: Option<f64>,
    /// The text fits if at most this share of its characters, 0 to 1, lies in matches. Default: no upper limit.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub max_share: Option<f64>,
}

/// Tokens of a sample.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Part {
    /// Every token.
    #[default]
    All,
    /// Those that the loss counts: with `loss_on: assistant`, what the assistant says.
    Trained,
}

/// When two samples are nearly the same: by the n-grams of token ids that they share.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NearDedup {
    /// The Jaccard similarity of their sets of n-grams from which two samples count as the same, above 0, at most 1.
    /// Default 0.8.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub threshold: f64,
    /// Number of MinHash permutations by which candidates are found, 1 to 4096. Default 128.
    #[schemars(range(min = 1, max = 4096))]
    pub num_perm: usize,
    /// Tokens in an n-gram, 1 to 1000. Default 5.
    #[schemars(range(min = 1, max = 1000))]
    pub ngram: usize,
    /// Seeds the permutations, 0 to 2^64 - 1. Default 42.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            min_length: 32,
            max_length: None,
            on_too_long: OnTooLong::Drop,
            truncation_side: TruncationSide::Right,
            drop_unlabelled: false,
            dedup: false,
            keep_patterns: Vec::new(),
            drop_patterns: Vec::new(),
            near_dedup: None,
        }
    }
}

impl Default for NearDedup {
    fn default() -> Self {
        Self { threshold: 0.8, num_perm: 128, ngram: 5, seed: 42 }
    }
}

impl Config {
    /// The lists of patterns by the names of their fields, in the order in which they are looked at.
    pub(crate) fn patterns(&self) -> [(&'static str, &[Pattern]); 2] {
        [("keep_patterns", &self.keep_patterns), ("drop_patterns", &self.drop_patterns)]
    }
}

impl Validate for Config {
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        match self.max_length {
            Some(0) => problems.at("max_length", "must be at least 1"),
            Some(max_length) if max_length < self.min_length => {
                problems.at("max_length", format!("must be at least min_length, which is {}", self.min_length));
            }
            None if self.on_too_long == OnTooLong::Truncate => {
                problems.at_with_help("on_too_long", "there is no max_length to truncate to", "give a `max_length`");
            }
            _ => {}
        }
        for (field, patterns) in self.patterns() {
            if !patterns.is_empty() && !inputs.contains(MODEL) {
                let help = "add `model: STAGE` to its `inputs`: the model whose tokenizer made the samples";
                problems.at_with_help(field, "the text is needed, and there is no input `model`", help);
            }
            for (index, pattern) in patterns.iter().enumerate() {
                pattern.validate(&format!("{field}.{index}"), problems);
            }
        }
        if let Some(near) = &self.near_dedup {
            let within = near.threshold > 0.0 && near.threshold <= 1.0;
            problems.require(within, "near_dedup.threshold", "must be above 0, and at most 1");
            problems.require((1..=4096).contains(&near.num_perm), "near_dedup.num_perm", "must be from 1 to 4096");
            problems.require((1..=1000).contains(&near.ngram), "near_dedup.ngram", "must be from 1 to 1000");
        }
    }
}

impl Pattern {
    fn validate(&self, at: &str, problems: &mut Problems) {
        if let Err(error) = regex::Regex::new(&self.pattern) {
            // The last line of several says what is wrong.
            let whole = error.to_string();
            let reason = whole.lines().last().unwrap_or_default().trim_start_matches("error: ");
            problems.at(&format!("{at}.pattern"), format!("no regular expression: {reason}"));
        }
        for (field, share) in [("min_share", self.min_share), ("max_share", self.max_share)] {
            let within = share.is_none_or(|share| (0.0..=1.0).contains(&share));
            problems.require(within, &format!("{at}.{field}"), "must be from 0 to 1");
        }
        if let (Some(least), Some(most)) = (self.min_share, self.max_share) {
            problems.require(least <= most, &format!("{at}.max_share"), format!("must be at least min_share, {least}"));
        }
    }
}
