//! The fields of `with:` of an `init_model` stage.

use std::collections::BTreeSet;

use pipe_hf::{Dtype, Error, ModelConfig};
use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::shape;

/// A model to make.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// A published shape to start from. Default: none, `config` gives all of it.
    pub preset: Option<Preset>,
    /// The shape, under the names of Hugging Face's `config.json`; what stands here wins over the preset.
    pub config: ShapeFields,
    /// Seeds the weights, from 0 on. Default 42.
    pub seed: u64,
    /// The type of the weights. Default `bfloat16`.
    pub dtype: WeightType,
}

/// A published shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// Qwen3-0.6B
    #[serde(rename = "qwen3-0.6b")]
    Qwen3_0_6B,
    /// Qwen3-1.7B
    #[serde(rename = "qwen3-1.7b")]
    Qwen3_1_7B,
    /// Qwen3-4B
    #[serde(rename = "qwen3-4b")]
    Qwen3_4B,
    /// Qwen3-8B
    #[serde(rename = "qwen3-8b")]
    Qwen3_8B,
}

/// The type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum WeightType {
    /// 2 bytes: 8 exponent bits, 7 of mantissa.
    Bfloat16,
    /// 2 bytes: 5 exponent bits, 10 of mantissa.
    Float16,
    /// 4 bytes.
    Float32,
}

impl WeightType {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::Bfloat16 => Dtype::BF16,
            Self::Float16 => Dtype::F16,
            Self::Float32 => Dtype::F32,
        }
    }
}

/// The fields of a Qwen3 `config.json` that say something about its shape.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ShapeFields {
    /// Rows of the embedding, 1 or more. Default: the preset's, else the size of the `tokenizer` input.
    #[schemars(range(min = 1))]
    pub vocab_size: Option<u32>,
    /// Width of the residual stream, 1 or more. Default: the preset's.
    #[schemars(range(min = 1))]
    pub hidden_size: Option<u32>,
    /// Width of the MLP, 1 or more. Default: the preset's.
    #[schemars(range(min = 1))]
    pub intermediate_size: Option<u32>,
    /// Number of layers, 1 or more. Default: the preset's.
    #[schemars(range(min = 1))]
    pub num_hidden_layers: Option<u32>,
    /// Query heads, 1 or more. Default: the preset's.
    #[schemars(range(min = 1))]
    pub num_attention_heads: Option<u32>,
    /// Key and value heads, a divisor of the query heads. Default: the preset's, else as many as there are query heads.
    #[schemars(range(min = 1))]
    pub num_key_value_heads: Option<u32>,
    /// Width of a head, even. Default: the preset's, else 128.
    #[schemars(range(min = 2))]
    pub head_dim: Option<u32>,
    /// Longest sequence, tokens, 1 or more. Default 40960.
    #[schemars(range(min = 1))]
    pub max_position_embeddings: Option<u32>,
    /// Base of the rotary embedding, above 0. Default 1000000.
    pub rope_theta: Option<f64>,
    /// Epsilon of the RMS norms, above 0. Default 1e-6.
    pub rms_norm_eps: Option<f64>,
    /// Whether the output head is the embedding. Default: the preset's, else false.
    pub tie_word_embeddings: Option<bool>,
    /// Standard deviation of the drawn weights, above 0. Default 0.02.
    pub initializer_range: Option<f64>,
    /// Token at the start of a text. Default: none; with a preset and no `tokenizer`, Qwen3's.
    pub bos_token_id: Option<u32>,
    /// Token that ends a text. Default: the `eos_token` of the `tokenizer` input; with a preset and no `tokenizer`,
    /// Qwen3's; else none.
    pub eos_token_id: Option<u32>,
    /// Padding token, whose embedding row stays zero. Default: the `pad_token` of the `tokenizer` input, else none.
    pub pad_token_id: Option<u32>,
}

impl Config {
    /// The model that is made where there is no `tokenizer` input.
    ///
    /// # Errors
    /// The first field that is missing or wrong.
    pub fn model(&self) -> Result<ModelConfig, Error> {
        shape::model_config(&shape::resolve(self, None), self.dtype)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self { preset: None, config: ShapeFields::default(), seed: 42, dtype: WeightType::Bfloat16 }
    }
}

impl Validate for Config {
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        let fields = shape::resolve(self, None);
        let mut missing = fields.missing();
        if inputs.contains("tokenizer") {
            missing.retain(|field| *field != "vocab_size");
        }
        for field in &missing {
            problems.at_with_help(
                &format!("config.{field}"),
                "is missing",
                "give it, or a `preset` such as qwen3-0.6b to start from",
            );
        }
        if !missing.is_empty() {
            return;
        }
        // Whatever the vocabulary of the tokenizer turns out to be, the rest can be checked.
        let vocab_size = fields.vocab_size.or(Some(u32::MAX));
        let fields = ShapeFields { vocab_size, ..fields };
        match shape::model_config(&fields, self.dtype) {
            Ok(_) => {}
            Err(Error::Field { field, problem, .. }) => {
                // `rope_theta` is found in `rope_parameters`; here it has no such parent.
                let name = field.rsplit('.').next().unwrap_or(&field);
                problems.at(&format!("config.{name}"), problem);
            }
            Err(other) => problems.at("config", other.to_string()),
        }
    }
}

impl ShapeFields {
    /// The fields that nothing can stand in for, and that are not there.
    fn missing(&self) -> Vec<&'static str> {
        let Self { vocab_size, hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, .. } = self;
        let required = [
            ("vocab_size", vocab_size),
            ("hidden_size", hidden_size),
            ("intermediate_size", intermediate_size),
            ("num_hidden_layers", num_hidden_layers),
            ("num_attention_heads", num_attention_heads),
        ];
        required.into_iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect()
    }
}
