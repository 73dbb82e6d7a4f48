//! PEFT's adapter folders.

use std::{fs, path::Path};

use pipe_hf::{AdapterConfig, AdapterTensor};
use serde_json::{Value, json};

use crate::{chain, fixture};

fn open(change: impl FnOnce(&mut Value)) -> Result<AdapterConfig, String> {
    let dir = tempfile::tempdir().unwrap();
    let text = fs::read(fixture("adapter/adapter_config.json")).unwrap();
    let mut config: Value = serde_json::from_slice(&text).unwrap();
    change(&mut config);
    fs::write(dir.path().join("adapter_config.json"), config.to_string()).unwrap();
    AdapterConfig::open(dir.path()).map_err(|error| chain(&error))
}

#[test]
fn what_peft_writes_is_read() {
    let config = open(|_| {}).unwrap();
    let expected = AdapterConfig {
        base_model: Some("model_tied".to_owned()),
        r: 8,
        lora_alpha: 16.0,
        lora_dropout: 0.0,
        use_rslora: true,
        target_modules: ["gate_proj", "v_proj", "q_proj", "down_proj"].map(str::to_owned).to_vec(),
        modules_to_save: Vec::new(),
        ensure_weight_tying: false,
    };
    assert_eq!(config, expected);
    assert!((config.scale() - 16.0 / 8_f64.sqrt()).abs() < 1e-12);
    assert_eq!(AdapterConfig { use_rslora: false, ..config }.scale(), 2.0);
}

#[test]
fn the_same_settings_give_the_same_bytes() {
    let dir = tempfile::tempdir().unwrap();
    let write = |config: &AdapterConfig| {
        config.write(dir.path()).unwrap();
        fs::read_to_string(dir.path().join("adapter_config.json")).unwrap()
    };
    let mut config = open(|config| config["modules_to_save"] = json!(["lm_head", "embed_tokens"])).unwrap();
    let text = write(&config);
    config.target_modules.reverse();
    config.modules_to_save.reverse();
    assert_eq!(write(&config), text);

    // Each field that is written says what PEFT wrote, or its default.
    let ours: Value = serde_json::from_str(&text).unwrap();
    let mut theirs: Value = serde_json::from_slice(&fs::read(fixture("adapter/adapter_config.json")).unwrap()).unwrap();
    theirs["target_modules"] = json!(["down_proj", "gate_proj", "q_proj", "v_proj"]);
    theirs["modules_to_save"] = json!(["embed_tokens", "lm_head"]);
    for (field, value) in ours.as_object().unwrap() {
        assert_eq!(value, &theirs[field], "{field}");
    }
    let fractional = AdapterConfig { lora_alpha: 0.5, ..config.clone() };
    assert!(write(&fractional).contains(r#""lora_alpha": 0.5"#));
    let reread = AdapterConfig::open(dir.path()).unwrap();
    assert_eq!(reread.lora_alpha, 0.5);
}

#[test]
fn absent_fields_take_defaults_and_unknown_ones_are_passed_over() {
    let dir = tempfile::tempdir().unwrap();
    let text = r#"{"peft_type": "LORA", "target_modules": ["q_proj"], "new_in_2030": {"a": 1}}"#;
    fs::write(dir.path().join("adapter_config.json"), text).unwrap();
    let config = AdapterConfig::open(dir.path()).unwrap();
    assert_eq!((config.r, config.lora_alpha, config.lora_dropout, config.use_rslora), (8, 8.0, 0.0, false));
    assert!(config.modules_to_save.is_empty() && config.base_model.is_none());
}

#[test]
fn variants_of_lora_are_refused() {
    for (field, value, expected) in [
        ("peft_type", json!("IA3"), "peft_type: `IA3` is not supported"),
        ("bias", json!("all"), "bias: `all` is not supported"),
        ("use_dora", json!(true), "use_dora: is not supported"),
        ("fan_in_fan_out", json!(true), "fan_in_fan_out: is not supported"),
        ("rank_pattern", json!({"q_proj": 4}), "rank_pattern: is not supported"),
        ("alpha_pattern", json!({"q_proj": 4}), "alpha_pattern: is not supported"),
        ("layers_to_transform", json!([0]), "layers_to_transform: is not supported"),
        ("target_modules", json!(".*proj"), "target_modules: must be a list"),
        ("target_modules", json!(null), "target_modules: is missing"),
        ("init_lora_weights", json!("pissa"), "init_lora_weights: \"pissa\" changes the base"),
        ("r", json!(0), "r: must be at least 1"),
        ("r", json!(-8), "r: invalid value"),
        ("lora_dropout", json!(1.0), "lora_dropout: must be at least 0 and below 1"),
    ] {
        let message = open(|config| config[field] = value).unwrap_err();
        assert!(message.contains(expected), "{field}: {message}");
    }
    assert!(open(|config| config["init_lora_weights"] = json!("gaussian")).is_ok());
    assert!(AdapterConfig::open(Path::new("/nowhere")).is_err());
}

#[test]
fn keys_come_back() {
    let module = || "model.layers.0.self_attn.q_proj".to_owned();
    for (tensor, key) in [
        (AdapterTensor::LoraA { module: module() }, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"),
        (AdapterTensor::LoraB { module: module() }, "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"),
        (
            AdapterTensor::Saved { module: "model.embed_tokens".to_owned() },
            "base_model.model.model.embed_tokens.weight",
        ),
        (AdapterTensor::Saved { module: "lm_head".to_owned() }, "base_model.model.lm_head.weight"),
    ] {
        assert_eq!(tensor.key(), key);
        assert_eq!(AdapterTensor::parse(key), Some(tensor));
    }
    assert_eq!(AdapterTensor::parse("model.embed_tokens.weight"), None);
    assert_eq!(AdapterTensor::parse("base_model.model.lm_head.bias"), None);
}
