//! The fields of `with:` of a `filter` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Which samples a `filter` stage keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Drop samples of fewer tokens than this; 0 drops none. Default 32.
    pub min_length: u64,
    /// Drop samples of more tokens than this. Default: no limit.
    pub max_length: Option<u64>,
    /// Drop samples in which the loss counts no token: every label behind the first is -100. Default false.
    pub drop_unlabelled: bool,
    /// Drop samples whose token ids are those of an earlier sample. Default false.
    pub dedup: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self { min_length: 32, max_length: None, drop_unlabelled: false, dedup: false }
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Some(max_length) = self.max_length
            && max_length < self.min_length
        {
            problems.at("max_length", format!("must be at least min_length, which is {}", self.min_length));
        }
    }
}
