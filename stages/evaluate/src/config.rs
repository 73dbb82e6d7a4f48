//! The fields of `with:` of an `evaluate` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an `evaluate` stage evaluates.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Compute in bfloat16 where a Transformers run under autocast does. False computes in float32. Default false.
    pub bf16: bool,
    /// Hold the linear layers of the base in 8 bits, as train's field of this name does. Default false.
    pub load_in_8bit: bool,
    /// Let CUDA multiply float32 matrices in TF32. Default false.
    pub tf32: bool,
    /// The most tokens to compute in one pass, 1 or more; a longer sample still runs whole. Default 4096.
    #[schemars(range(min = 1))]
    pub max_tokens_per_pass: u64,
    /// Also write the loss of every sample, to `per_sample.jsonl`. Default false.
    pub per_sample: bool,
    /// Prompts to answer greedily: each is put as a user's message into the base's chat template, or taken as it is
    /// where the base has none. Default: none.
    pub prompts: Vec<String>,
    /// The most tokens of an answer, 1 or more. Default 64.
    #[schemars(range(min = 1))]
    pub max_new_tokens: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bf16: false,
            load_in_8bit: false,
            tf32: false,
            max_tokens_per_pass: 4096,
            per_sample: false,
            prompts: Vec::new(),
            max_new_tokens: 64,
        }
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        problems.require(self.max_tokens_per_pass >= 1, "max_tokens_per_pass", "must be 1 or more, not 0");
        problems.require(self.max_new_tokens >= 1, "max_new_tokens", "must be 1 or more, not 0");
        for (index, prompt) in self.prompts.iter().enumerate() {
            problems.require(!prompt.trim().is_empty(), "prompts", format!("prompt {} is empty", index + 1));
        }
    }
}
