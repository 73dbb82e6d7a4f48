//! `pipe plan --memory`: what training takes, before anything is there.

use serde_json::Value;

use super::{Project, Ran, quickstart};

/// The one stage that takes memory.
fn told(ran: &Ran) -> Value {
    let plan: Value = serde_json::from_str(&ran.stdout).unwrap_or_else(|_| panic!("{} {}", ran.stdout, ran.stderr));
    assert!(plan["stages"].as_array().unwrap().iter().any(|stage| stage["stage"] == "adapter"));
    let memory = plan["memory"].as_array().unwrap();
    assert_eq!((memory.len(), &memory[0]["stage"], &memory[0]["kind"]), (1, &"adapter".into(), &"train".into()));
    memory[0].clone()
}

#[test]
fn the_plan_is_an_upper_bound_until_the_samples_are_there() {
    let (project, file) = (Project::new(), quickstart());
    let json = ["plan", &file, "adapter", "--memory", "--format", "json"];
    let before = told(&project.run(&json))["memory"].clone();
    let bytes = |part: &Value| part["bytes"].as_u64().unwrap();
    let components: Vec<&Value> = before["components"].as_array().unwrap().iter().collect();
    assert_eq!(components.iter().map(|part| bytes(part)).sum::<u64>(), before["peak_bytes"].as_u64().unwrap());
    // 4096 x 256 values, four bytes each.
    let tables = components.iter().find(|part| part["name"] == "trained embedding and head").unwrap();
    assert_eq!(bytes(tables), 4096 * 256 * 4);
    assert!(before["notes"].to_string().contains("an upper bound") && before["limit_bytes"].is_null(), "{before}");
    // Eight samples of 384 tokens are fewer than `max_tokens_per_pass`.
    assert!(before["notes"].to_string().contains("largest pass: 3072 tokens"), "{before}");
    assert!(!project.path("home").exists(), "looking changes nothing");

    let text = project.run(&["plan", &file, "adapter", "--memory"]);
    assert_eq!(text.code, 0, "{}", text.stderr);
    for part in ["to run, 0 up to date\n\nadapter (train)\n  GPU memory: ", "  optimizer states  ", "asks for no GPU"] {
        assert!(text.stdout.contains(part), "no {part:?} in:\n{}", text.stdout);
    }

    assert_eq!(project.run(&["run", &file, "base", "parts"]).code, 0);
    let after = told(&project.run(&json))["memory"].clone();
    assert!(!after["notes"].to_string().contains("upper bound"), "{after}");
    assert!(after["peak_bytes"].as_u64() < before["peak_bytes"].as_u64(), "{after}");
}

#[test]
fn what_does_not_fit_is_3_with_what_would_help() {
    let (project, file) = (Project::new(), quickstart());
    let plan = |memory: &[&str]| project.run(&[&["plan", &file, "adapter", "--memory"][..], memory].concat());
    let fits = plan(&["--device-memory", "8GB"]);
    assert!(fits.code == 0 && fits.stdout.contains(" of 8.000 GB"), "{} {}", fits.stdout, fits.stderr);

    let refused = plan(&["--device-memory", "560MB"]);
    assert_eq!(refused.code, 3, "{} {}", refused.stdout, refused.stderr);
    for part in ["does not fit: training takes at least ", "help: ", "no `lora.modules_to_save`"] {
        assert!(refused.stdout.contains(part), "no {part:?} in:\n{}", refused.stdout);
    }
    let limited = plan(&["--set", "stages.adapter.with.memory_limit=560MB", "--format", "json"]);
    assert_eq!(limited.code, 3);
    assert_eq!(told(&limited)["memory"]["limit_bytes"], 560_000_000);

    let wrong = plan(&["--device-memory", "8G"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("8GiB"), "{}", wrong.stderr);
    let wrong = plan(&["--set", "stages.adapter.with.memory_limit=lots"]);
    assert!(wrong.code == 2 && wrong.stderr.contains("memory_limit"), "{}", wrong.stderr);
    assert_eq!(project.run(&["plan", &file, "--device-memory", "8GB"]).code, 2);
}

#[test]
fn a_base_of_unknown_shape_is_named_with_the_command_that_makes_it() {
    let project = Project::new();
    let text = "stages:
  base: { kind: download, with: { source: 'hf://nobody/nothing' } }
  corpus: { kind: download, with: { source: 'file://data' } }
  tokens: { kind: tokenize, inputs: { model: base, data: corpus } }
  adapter: { kind: train, inputs: { base: base, samples: tokens } }
";
    std::fs::write(project.path("p.yaml"), text).unwrap();
    std::fs::create_dir(project.path("data")).unwrap();
    std::fs::write(project.path("data/a.txt"), "a").unwrap();
    let ran = project.run(&["plan", "p.yaml", "--memory"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("`pipe run p.yaml --until base`"), "{}", ran.stdout);
    let json = told(&project.run(&["plan", "p.yaml", "--memory", "--format", "json"]));
    assert!(json["unknown"].as_str().unwrap().contains("--until base"), "{json}");

    // A model of the user's own is looked at where it lies.
    let config = r#"{ "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 512, "hidden_size": 64,
        "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "head_dim": 32, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 512,
        "tie_word_embeddings": true, "hidden_act": "silu" }"#;
    std::fs::create_dir(project.path("model")).unwrap();
    std::fs::write(project.path("model/config.json"), config).unwrap();
    let own = ["plan", "p.yaml", "--memory", "--set", "stages.base.with.source=file://model"];
    let ran = project.run(&own);
    assert!(ran.code == 0 && ran.stdout.contains("frozen weights"), "{} {}", ran.stdout, ran.stderr);

    let none = project.run(&["plan", "p.yaml", "corpus", "--memory"]);
    assert!(none.stdout.contains("no stage of the plan takes a GPU's memory"), "{}", none.stdout);
}
