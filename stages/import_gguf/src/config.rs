//! The fields of `with:` of an `import_gguf` stage.

use std::collections::BTreeSet;

use pipe_hf::Dtype;
use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How an `import_gguf` stage reads a file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name of the file in the input, where there are several. Default: the only one that ends in `.gguf`.
    pub file: Option<String>,
    /// The type of the weights: `bf16`, `fp16` or `fp32`. Default `fp32`, in which nothing is lost.
    pub dtype: WeightType,
}

/// A type of weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// bfloat16
    Bf16,
    /// float16
    Fp16,
    /// float32
    #[default]
    Fp32,
}

impl WeightType {
    /// The type in a file.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::Fp16 => Dtype::F16,
            Self::Fp32 => Dtype::F32,
        }
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Some(file) = &self.file {
            let inside = !file.is_empty()
                && !file.starts_with('/')
                && file.split('/').all(|part| !matches!(part, "" | "." | ".."));
            problems.require(inside, "file", "must be the path of a file in the input, such as `model.gguf`");
        }
    }
}
