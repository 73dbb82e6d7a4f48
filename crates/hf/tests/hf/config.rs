//! `config.json`, as several versions of transformers write it, and as nobody should.

use std::path::Path;

use pipe_hf::{Architecture, Dtype, ModelConfig, Role};
use serde_json::{Map, Value, json};

use crate::{chain, fixture};

fn object(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(object) => object,
        other => panic!("{other} is no object"),
    }
}

fn qwen3() -> Map<String, Value> {
    object(json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 192, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "max_position_embeddings": 512, "rope_theta": 1e6, "tie_word_embeddings": true,
    }))
}

fn parse(object: Map<String, Value>) -> Result<ModelConfig, String> {
    ModelConfig::from_object(Path::new("config.json"), object).map_err(|error| chain(&error))
}

fn with(changes: Value) -> Result<ModelConfig, String> {
    let mut config = qwen3();
    config.extend(object(changes));
    parse(config)
}

#[test]
fn both_versions_of_transformers_say_the_same() {
    let v5 = ModelConfig::open(&fixture("v5")).unwrap();
    let v4 = ModelConfig::open(&fixture("v4")).unwrap();
    assert_eq!(ModelConfig { raw: Map::new(), ..v5.clone() }, ModelConfig { raw: Map::new(), ..v4 });
    assert_eq!(v5.architecture, Architecture::Qwen3);
    assert_eq!((v5.vocab_size, v5.hidden_size, v5.intermediate_size), (512, 64, 192));
    assert_eq!((v5.num_hidden_layers, v5.num_attention_heads, v5.num_key_value_heads, v5.head_dim), (2, 4, 2, 16));
    assert_eq!((v5.rms_norm_eps, v5.rope_theta, v5.initializer_range), (1e-6, 1e6, 0.02));
    assert_eq!((v5.qkv_bias, v5.output_bias, v5.qk_norm, v5.tie_word_embeddings), (false, false, true, true));
    assert_eq!((v5.pad_token_id, v5.bos_token_id, v5.eos_token_ids.as_slice()), (Some(509), None, &[511][..]));
    assert_eq!(v5.dtype, Some(Dtype::F32));
    assert_eq!(v5.quantization, None);
}

#[test]
fn a_quantised_model_is_written_as_it_was_read() {
    let config = ModelConfig::open(&fixture("bnb4")).unwrap();
    let quantization = config.quantization.clone().unwrap();
    assert_eq!(quantization.compute_dtype, Dtype::BF16);
    assert!(quantization.double_quant);
    assert!(quantization.skips("lm_head") && !quantization.skips("model.layers.0.mlp.up_proj"));
    let again = serde_json::to_string(&quantization.to_json()).unwrap();
    assert_eq!(again, serde_json::to_string(&config.raw["quantization_config"]).unwrap());

    let dir = tempfile::tempdir().unwrap();
    config.write(dir.path()).unwrap();
    let written = std::fs::read_to_string(dir.path().join("config.json")).unwrap();
    let original = std::fs::read_to_string(fixture("bnb4/config.json")).unwrap();
    // Python writes 1e-06.
    assert_eq!(written.trim_end(), original.replace("1e-06", "1e-6").trim_end());
}

#[test]
fn a_list_of_skipped_modules_takes_the_place_of_the_default() {
    let quantization = |skip: Value| {
        let config = with(json!({"quantization_config": {
            "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
            "llm_int8_skip_modules": skip,
        }}));
        config.unwrap().quantization.unwrap()
    };
    let given = quantization(json!(["down_proj", "model.layers.1.mlp.up_proj"]));
    assert!(given.skips("model.layers.0.mlp.down_proj") && given.skips("model.layers.1.mlp.up_proj"));
    assert!(!given.skips("model.layers.0.mlp.up_proj") && !given.skips("lm_head") && !given.skips("xdown_proj"));
    assert!(!given.double_quant);
    assert_eq!(given.compute_dtype, Dtype::F32);
    assert!(quantization(Value::Null).skips("lm_head"));
}

#[test]
fn rope_parameters_win_over_rope_theta() {
    let config = with(json!({"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}})).unwrap();
    assert_eq!(config.rope_theta, 5e5);
    let config = with(json!({"rope_parameters": {"rope_type": "default"}, "rope_scaling": null})).unwrap();
    assert_eq!(config.rope_theta, 1e6);
}

#[test]
fn the_families_differ_in_biases_norms_and_defaults() {
    let mut config = qwen3();
    config.extend(object(
        json!({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "torch_dtype": "bfloat16"}),
    ));
    config.remove("head_dim");
    let qwen2 = parse(config).unwrap();
    assert_eq!((qwen2.qkv_bias, qwen2.output_bias, qwen2.qk_norm, qwen2.head_dim), (true, false, false, 16));
    assert_eq!(qwen2.dtype, Some(Dtype::BF16));

    let mut config = qwen3();
    config.extend(object(json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "attention_bias": true, "pad_token_id": -1,
        "eos_token_id": [1, 2], "num_key_value_heads": null, "sliding_window": 4096,
    })));
    config.remove("head_dim");
    let llama = parse(config).unwrap();
    assert_eq!((llama.qkv_bias, llama.output_bias, llama.qk_norm), (true, true, false));
    assert_eq!((llama.num_key_value_heads, llama.head_dim), (4, 16));
    assert_eq!((llama.pad_token_id, llama.eos_token_ids), (Some(511), vec![1, 2]));

    let mut config = qwen3();
    config.remove("head_dim");
    config.remove("architectures");
    assert_eq!(parse(config).unwrap().head_dim, 128);
}

#[test]
fn parameters_are_those_of_the_family() {
    let names = |config: &ModelConfig, role| {
        config.parameters().into_iter().filter(|one| one.role == role).map(|one| one.name).collect::<Vec<_>>()
    };
    let config = parse(qwen3()).unwrap();
    assert_eq!(config.parameters().len(), 1 + 2 * (7 + 4) + 1);
    assert_eq!(names(&config, Role::Linear).len(), 14);
    assert_eq!(names(&config, Role::Head), [""; 0]);
    let untied = with(json!({"tie_word_embeddings": false})).unwrap();
    assert_eq!(names(&untied, Role::Head), ["lm_head.weight"]);
    let qwen2 =
        with(json!({"architectures": ["Qwen2ForCausalLM"], "model_type": "qwen2", "num_hidden_layers": 1})).unwrap();
    let biases = ["q", "k", "v"].map(|name| format!("model.layers.0.self_attn.{name}_proj.bias"));
    assert_eq!(names(&qwen2, Role::Bias), biases);
    assert_eq!(names(&qwen2, Role::Norm).len(), 3);
}

#[test]
fn what_is_wrong_is_named() {
    for (changes, expected) in [
        (json!({"rope_theta": null}), "rope_theta: is missing, at the top level and in rope_parameters"),
        (json!({"rope_theta": 0}), "rope_theta: must be above 0, it is 0"),
        (
            json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            "rope_scaling.rope_type: `yarn` is not supported",
        ),
        (json!({"rope_scaling": {"type": "linear"}}), "rope_scaling.type: `linear` is not supported"),
        (json!({"rope_parameters": {"rope_type": "llama3"}}), "rope_parameters.rope_type: `llama3` is not supported"),
        (json!({"rope_parameters": [1]}), "rope_parameters: expected an object"),
        (json!({"model_type": "mistral"}), "model_type: `mistral` is not supported; qwen3, qwen2 and llama are"),
        (json!({"architectures": ["Qwen3MoeForCausalLM"]}), "architectures: `Qwen3MoeForCausalLM` is not supported"),
        (json!({"architectures": ["LlamaForCausalLM"]}), "contradicts model_type `qwen3`"),
        (json!({"hidden_act": "gelu"}), "hidden_act: `gelu` is not supported"),
        (json!({"mlp_bias": true}), "mlp_bias: biases in the MLP"),
        (json!({"use_sliding_window": true, "sliding_window": 4096}), "use_sliding_window: sliding-window attention"),
        (json!({"layer_types": ["full_attention", "sliding_attention"]}), "layer_types: `sliding_attention`"),
        (json!({"num_attention_heads": 3}), "num_key_value_heads: must divide num_attention_heads, which is 3"),
        (json!({"num_key_value_heads": null}), "num_key_value_heads: is missing"),
        (json!({"head_dim": 15}), "head_dim: must be even"),
        (json!({"hidden_size": 0}), "hidden_size: must be at least 1"),
        (json!({"hidden_size": -4}), "hidden_size: invalid value"),
        (json!({"hidden_size": "64"}), "hidden_size: invalid type"),
        (json!({"num_hidden_layers": 4_000_000_000_u32}), "num_hidden_layers: must be at most"),
        (json!({"vocab_size": null}), "vocab_size: is missing"),
        (json!({"pad_token_id": 512}), "pad_token_id: 512 is outside of the vocabulary of 512"),
        (json!({"rms_norm_eps": -1e-6}), "rms_norm_eps: must be above 0"),
        (json!({"dtype": "float8"}), "dtype: `float8` is none of"),
        (json!({"quantization_config": {"quant_method": "gptq"}}), "quantization_config.quant_method: `gptq` is not"),
        (
            json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_8bit": true}}),
            "quantization_config.load_in_8bit: 8-bit checkpoints are not supported",
        ),
        (
            json!({"quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": true}}),
            "quantization_config.bnb_4bit_quant_type: `fp4` is not supported",
        ),
    ] {
        let message = with(changes.clone()).unwrap_err();
        assert!(message.starts_with("config.json: ") && message.contains(expected), "{changes}: {message}");
    }
}

#[test]
fn a_file_that_is_no_object_is_named() {
    let dir = tempfile::tempdir().unwrap();
    for text in ["", "[]", "{", "\u{feff}{}"] {
        std::fs::write(dir.path().join("config.json"), text).unwrap();
        let message = chain(&ModelConfig::open(dir.path()).unwrap_err());
        assert!(message.contains("config.json is not valid JSON: "), "{text:?}: {message}");
    }
}
