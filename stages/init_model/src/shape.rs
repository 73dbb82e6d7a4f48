//! From the fields of the stage to the `config.json` of the model.

use std::path::Path;

use pipe_hf::{Architecture, Error, ModelConfig, torch_name};
use serde_json::{Map, Value, json};

use crate::{Config, Preset, ShapeFields, WeightType, tokenizer::Tokens};

/// Qwen3's `<|endoftext|>`, which its published configurations call the start of a text.
const QWEN3_BOS: u32 = 151_643;
/// Qwen3's `<|im_end|>`.
const QWEN3_EOS: u32 = 151_645;
/// The version of transformers whose fields are written.
const TRANSFORMERS_VERSION: &str = "5.23.0";

impl Preset {
    /// # Source
    /// The `config.json` of Qwen/Qwen3-{0.6B, 1.7B, 4B, 8B} on the Hugging Face hub.
    fn fields(self) -> ShapeFields {
        let (hidden_size, intermediate_size, num_hidden_layers, num_attention_heads, tied) = match self {
            Self::Qwen3_0_6B => (1024, 3072, 28, 16, true),
            Self::Qwen3_1_7B => (2048, 6144, 28, 16, true),
            Self::Qwen3_4B => (2560, 9728, 36, 32, true),
            Self::Qwen3_8B => (4096, 12_288, 36, 32, false),
        };
        ShapeFields {
            vocab_size: Some(151_936),
            hidden_size: Some(hidden_size),
            intermediate_size: Some(intermediate_size),
            num_hidden_layers: Some(num_hidden_layers),
            num_attention_heads: Some(num_attention_heads),
            num_key_value_heads: Some(8),
            head_dim: Some(128),
            tie_word_embeddings: Some(tied),
            bos_token_id: Some(QWEN3_BOS),
            eos_token_id: Some(QWEN3_EOS),
            ..ShapeFields::default()
        }
    }
}

/// All fields that are known: given, else of the tokenizer, else of the preset, else the defaults.
pub(crate) fn resolve(config: &Config, tokens: Option<&Tokens>) -> ShapeFields {
    let given = &config.config;
    let mut preset = config.preset.map(Preset::fields).unwrap_or_default();
    if let Some(tokens) = tokens {
        // Ids of another tokenizer mean nothing.
        preset.bos_token_id = None;
        preset.eos_token_id = tokens.eos;
        preset.pad_token_id = tokens.pad;
        preset.vocab_size = preset.vocab_size.or(Some(tokens.size));
    }
    ShapeFields {
        vocab_size: given.vocab_size.or(preset.vocab_size),
        hidden_size: given.hidden_size.or(preset.hidden_size),
        intermediate_size: given.intermediate_size.or(preset.intermediate_size),
        num_hidden_layers: given.num_hidden_layers.or(preset.num_hidden_layers),
        num_attention_heads: given.num_attention_heads.or(preset.num_attention_heads),
        num_key_value_heads: given.num_key_value_heads.or(preset.num_key_value_heads).or(given.num_attention_heads),
        head_dim: given.head_dim.or(preset.head_dim).or(Some(128)),
        max_position_embeddings: given.max_position_embeddings.or(Some(40_960)),
        rope_theta: given.rope_theta.or(Some(1_000_000.0)),
        rms_norm_eps: given.rms_norm_eps.or(Some(1e-6)),
        tie_word_embeddings: given.tie_word_embeddings.or(preset.tie_word_embeddings).or(Some(false)),
        initializer_range: given.initializer_range.or(Some(0.02)),
        bos_token_id: given.bos_token_id.or(preset.bos_token_id),
        eos_token_id: given.eos_token_id.or(preset.eos_token_id),
        pad_token_id: given.pad_token_id.or(preset.pad_token_id),
    }
}

/// The model that the fields describe, checked as any `config.json` is. `rope_theta` is written both as transformers 4
/// and as transformers 5 read it: a reader that finds neither silently takes another.
///
/// # Errors
/// The first field that is missing or wrong.
pub(crate) fn model_config(fields: &ShapeFields, dtype: WeightType) -> Result<ModelConfig, Error> {
    let dtype = torch_name(dtype.dtype());
    let layers = fields.num_hidden_layers.unwrap_or(0);
    let object = json!({
        "architectures": [Architecture::Qwen3.class_name()],
        "attention_bias": false,
        "attention_dropout": 0.0,
        "bos_token_id": fields.bos_token_id,
        "dtype": dtype,
        "eos_token_id": fields.eos_token_id,
        "head_dim": fields.head_dim,
        "hidden_act": "silu",
        "hidden_size": fields.hidden_size,
        "initializer_range": fields.initializer_range,
        "intermediate_size": fields.intermediate_size,
        "max_position_embeddings": fields.max_position_embeddings,
        "max_window_layers": layers,
        "model_type": Architecture::Qwen3.model_type(),
        "num_attention_heads": fields.num_attention_heads,
        "num_hidden_layers": layers,
        "num_key_value_heads": fields.num_key_value_heads,
        "pad_token_id": fields.pad_token_id,
        "rms_norm_eps": fields.rms_norm_eps,
        "rope_parameters": {"rope_theta": fields.rope_theta, "rope_type": "default"},
        "rope_scaling": null,
        "rope_theta": fields.rope_theta,
        "sliding_window": null,
        "tie_word_embeddings": fields.tie_word_embeddings,
        "torch_dtype": dtype,
        "transformers_version": TRANSFORMERS_VERSION,
        "use_cache": true,
        "use_sliding_window": false,
        "vocab_size": fields.vocab_size,
    });
    let object = match object {
        Value::Object(object) => object,
        _ => Map::new(),
    };
    ModelConfig::from_object(Path::new(pipe_hf::CONFIG_FILE), object)
}
