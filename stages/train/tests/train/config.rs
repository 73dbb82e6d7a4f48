//! The configuration: defaults, what decides the artifact, and what is refused.

use std::collections::BTreeSet;

use pipe_stage::{EXECUTION_ONLY, Problems, Validate};
use serde_json::{Value, json};
use stage_train::Config;

/// Paths and messages of the problems that a configuration has.
fn problems(config: Value, inputs: &[&str]) -> Vec<(String, String)> {
    let config: Config = serde_json::from_value(config).unwrap();
    let mut problems = Problems::default();
    let inputs: BTreeSet<String> = inputs.iter().map(|name| (*name).to_owned()).collect();
    config.validate(&inputs, &mut problems);
    problems.into_inner().into_iter().map(|(path, message, _)| (path, message)).collect()
}

fn paths(config: Value) -> Vec<String> {
    problems(config, &["base", "samples"]).into_iter().map(|(path, _)| path).collect()
}

#[test]
fn defaults_are_those_of_transformers_and_peft_but_for_what_says_so() {
    let config: Config = serde_json::from_value(json!({})).unwrap();
    assert_eq!(
        serde_json::to_value(&config).unwrap(),
        json!({
            "lora": {
                "r": 8, "lora_alpha": 8.0, "target_modules": ["q_proj", "v_proj"], "lora_dropout": 0.0,
                "use_rslora": false, "modules_to_save": [],
            },
            "learning_rate": 5e-5, "lr_scheduler_type": "linear", "warmup_ratio": null, "warmup_steps": null,
            "weight_decay": 0.0, "max_grad_norm": 1.0, "adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-8,
            "optim": "adamw", "num_train_epochs": null, "max_steps": null, "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": 1, "max_tokens_per_pass": 4096, "gradient_checkpointing": false,
            "memory_limit": null,
            "bf16": false, "fp16": false, "load_in_8bit": false, "tf32": false, "cudnn_benchmark": false,
            "neftune_noise_alpha": null, "shuffle": true, "seed": 42, "data_seed": null, "logging_steps": 10,
            "monitor_gpu_memory": true, "eval_steps": null, "prompts": [],
            "max_new_tokens": 64, "save_steps": 500, "save_total_limit": 2, "dataloader_num_workers": 0,
            "dataloader_pin_memory": true,
        })
    );
    assert_eq!(paths(json!({})), Vec::<String>::new());
}

/// Both lists in full: a field that moves from one to the other changes keys, or breaks a promise.
#[test]
fn every_field_is_semantic_or_execution_only() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let fields = schema["properties"].as_object().unwrap();
    let marked = |name: &&String| fields[*name].get(EXECUTION_ONLY) == Some(&json!(true));
    let execution_only: Vec<&String> = fields.keys().filter(marked).collect();
    assert_eq!(
        execution_only.iter().copied().collect::<BTreeSet<_>>(),
        [
            "gradient_checkpointing",
            "memory_limit",
            "cudnn_benchmark",
            "logging_steps",
            "monitor_gpu_memory",
            "save_steps",
            "save_total_limit",
            "dataloader_num_workers",
            "dataloader_pin_memory",
        ]
        .map(str::to_owned)
        .iter()
        .collect()
    );
    let config: Config = serde_json::from_value(json!({})).unwrap();
    let semantic: Vec<String> = config.semantic().unwrap().keys().cloned().collect();
    assert_eq!(
        semantic,
        [
            "lora",
            "learning_rate",
            "lr_scheduler_type",
            "warmup_ratio",
            "warmup_steps",
            "weight_decay",
            "max_grad_norm",
            "adam_beta1",
            "adam_beta2",
            "adam_epsilon",
            "optim",
            "num_train_epochs",
            "max_steps",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "max_tokens_per_pass",
            "bf16",
            "fp16",
            "load_in_8bit",
            "tf32",
            "neftune_noise_alpha",
            "shuffle",
            "seed",
            "data_seed",
            "eval_steps",
            "prompts",
            "max_new_tokens",
        ]
    );
    assert_eq!(semantic.len() + execution_only.len(), fields.len());
}

#[test]
fn memory_is_written_with_its_unit() {
    for limit in ["16GB", "7.5 GB", "8GiB", "16000000000"] {
        assert_eq!(paths(json!({ "memory_limit": limit })), Vec::<String>::new());
    }
    for limit in ["16G", "lots", "0GB", "-1GB"] {
        assert_eq!(paths(json!({ "memory_limit": limit })), ["memory_limit"], "{limit}");
    }
}

#[test]
fn every_field_is_documented() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    for properties in [&schema["properties"], &schema["$defs"]["Lora"]["properties"]] {
        for (name, field) in properties.as_object().unwrap() {
            assert!(field["description"].as_str().is_some_and(|text| text.len() > 10), "{name}");
        }
    }
}

#[test]
fn every_problem_is_reported_at_its_field() {
    let wrong = json!({
        "lora": { "r": 0, "lora_alpha": 0.0, "target_modules": ["q_proj", "qproj", "q_proj"], "lora_dropout": 1.0,
                  "modules_to_save": ["norm"] },
        "learning_rate": 0.0, "warmup_ratio": 1.0, "weight_decay": -0.1, "max_grad_norm": -1.0, "adam_beta1": 1.0,
        "adam_beta2": -0.1, "adam_epsilon": 0.0, "neftune_noise_alpha": -1.0, "num_train_epochs": 0.0, "per_device_train_batch_size": 0,
        "max_tokens_per_pass": 0, "logging_steps": 0, "save_steps": 0, "save_total_limit": 0, "max_new_tokens": 0,
        "prompts": [" "],
    });
    let found: BTreeSet<String> = paths(wrong).into_iter().collect();
    let expected = [
        "lora.r",
        "lora.lora_alpha",
        "lora.target_modules",
        "lora.lora_dropout",
        "lora.modules_to_save",
        "learning_rate",
        "warmup_ratio",
        "weight_decay",
        "max_grad_norm",
        "adam_beta1",
        "adam_beta2",
        "adam_epsilon",
        "neftune_noise_alpha",
        "num_train_epochs",
        "per_device_train_batch_size",
        "max_tokens_per_pass",
        "logging_steps",
        "save_steps",
        "save_total_limit",
        "max_new_tokens",
        "prompts",
    ];
    assert_eq!(found, expected.map(str::to_owned).into_iter().collect());
}

#[test]
fn fields_that_exclude_each_other_are_refused() {
    assert_eq!(paths(json!({ "warmup_ratio": 0.1, "warmup_steps": 3 })), ["warmup_ratio"]);
    assert_eq!(paths(json!({ "num_train_epochs": 1.0, "max_steps": 3 })), ["num_train_epochs"]);
    assert_eq!(paths(json!({ "fp16": true, "bf16": true })), ["fp16"]);
    assert_eq!(paths(json!({ "eval_steps": 3 })), ["eval_steps"], "nothing to evaluate");
    assert!(problems(json!({ "eval_steps": 3 }), &["base", "samples", "eval"]).is_empty());
    assert!(paths(json!({ "eval_steps": 3, "prompts": ["hello"] })).is_empty());
    let too_many = json!({ "per_device_train_batch_size": u64::MAX, "gradient_accumulation_steps": 2 });
    assert_eq!(paths(too_many), ["gradient_accumulation_steps"]);
}

#[test]
fn optimizers_have_the_names_of_transformers() {
    for (name, eight_bit) in [
        ("adamw", false),
        ("adamw_torch", false),
        ("adamw_torch_fused", false),
        ("adamw_8bit", true),
        ("adamw_bnb_8bit", true),
    ] {
        let config: Config = serde_json::from_value(json!({ "optim": name })).unwrap();
        assert_eq!(config.optim.has_8bit_states(), eight_bit, "{name}");
        assert_eq!(serde_json::to_value(&config).unwrap()["optim"], name);
        assert!(paths(json!({ "optim": name })).is_empty(), "{name}");
    }
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap().to_string();
    assert!(schema.contains("adamw_bnb_8bit") && !schema.contains("paged"), "{schema}");
}

#[test]
fn what_is_not_built_says_so() {
    let found = problems(json!({ "optim": "paged_adamw_8bit" }), &[]);
    assert!(matches!(&found[..], [(path, message)] if path == "optim" && message.contains("not built")), "{found:?}");
    let error = serde_json::from_value::<Config>(json!({ "optim": "lion" })).unwrap_err().to_string();
    assert!(error.contains("adamw") && error.contains("adamw_torch_fused"), "{error}");
}
