//! Held-out loss and answers in the course of training, and what else stands in the artifact.

use std::fs;

use pipe_stage::Event;
use serde_json::{Value, json};

use crate::harness::{Stage, data, fixture, model, short_run};

fn lines(stage: &Stage, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(stage.output().join(file)).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The tied model with its tokenizer.
fn base_with_tokenizer(stage: &Stage) -> std::path::PathBuf {
    let folder = stage.resume().with_file_name("base");
    fs::create_dir(&folder).unwrap();
    for from in [model("model_tied"), fixture("tokenizer")] {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            fs::copy(&path, folder.join(path.file_name().unwrap())).unwrap();
        }
    }
    folder
}

#[test]
fn loss_and_answers_are_kept_before_between_and_after() {
    let mut stage = short_run();
    stage.inputs.insert("base".to_owned(), base_with_tokenizer(&stage));
    stage.add_samples("eval", &data("tied"));
    for (field, value) in [
        ("eval_steps", json!(5)),
        ("prompts", json!(["hello", "你好"])),
        ("max_new_tokens", json!(6)),
        ("learning_rate", json!(3e-3)),
    ] {
        stage.set(field, value);
    }
    let events = stage.run_to_end();
    let losses = lines(&stage, "eval.jsonl");
    assert_eq!(losses.iter().map(|line| line["step"].clone()).collect::<Vec<_>>(), [0, 5, 10, 12]);
    let loss = |line: &Value| line["loss"].as_f64().unwrap();
    assert!(loss(losses.last().unwrap()) < loss(&losses[0]) - 0.05, "it learns its own training data: {losses:?}");
    assert!((losses[0]["perplexity"].as_f64().unwrap() - loss(&losses[0]).exp()).abs() < 1e-9);

    let answers = lines(&stage, "answers.jsonl");
    assert_eq!(answers.len(), 8);
    assert_eq!((&answers[0]["prompt"], &answers[1]["prompt"]), (&json!("hello"), &json!("你好")));
    assert!(answers.iter().all(|line| (1..=6).contains(&line["tokens"].as_u64().unwrap())));

    let figure = |name: &str| {
        events.iter().find_map(|event| match event {
            Event::Figure { name: found, value } if found == name => value.as_f64(),
            _ => None,
        })
    };
    assert_eq!(figure("eval_loss_before"), Some(loss(&losses[0])));
    assert_eq!(figure("eval_loss_after"), Some(loss(&losses[3])));
    assert!(figure("resident_peak_bytes").unwrap() > 1e6);
}

#[test]
fn the_artifact_holds_the_semantic_configuration_and_no_place_or_time() {
    let stage = short_run();
    stage.run_to_end();
    let artifact = stage.artifact();
    let names: Vec<&str> = artifact.keys().map(String::as_str).collect();
    assert_eq!(names, ["adapter_config.json", "adapter_model.safetensors", "metrics.jsonl", "training.json"]);
    let summary: Value = serde_json::from_slice(&artifact["training.json"]).unwrap();
    assert_eq!((&summary["updates"], &summary["samples"]), (&json!(12), &json!(46)));
    assert_eq!(summary["config"]["learning_rate"], json!(1e-3));
    assert!(summary["config"].get("save_steps").is_none(), "an execution-only field");
    let adapter: Value = serde_json::from_slice(&artifact["adapter_config.json"]).unwrap();
    assert_eq!(adapter["base_model_name_or_path"], Value::Null);
    assert_eq!(adapter["modules_to_save"], json!(["embed_tokens", "lm_head"]));
    assert_eq!(adapter["ensure_weight_tying"], json!(true));
    let metrics = stage.metrics();
    let fields: Vec<&String> = metrics[0].as_object().unwrap().keys().collect();
    assert_eq!(fields, ["step", "loss", "grad_norm", "learning_rate", "tokens"]);
    for (name, bytes) in artifact {
        let holds = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!holds("/tmp") && !holds("fixtures"), "{name} holds a path");
    }
}

#[test]
fn a_short_window_at_the_end_of_an_epoch_is_an_update() {
    let mut stage = short_run();
    stage.config.as_object_mut().unwrap().remove("max_steps");
    stage.set("num_train_epochs", 1.0);
    stage.run_to_end();
    let metrics = stage.metrics();
    assert_eq!(metrics.len(), 12, "46 samples, 4 an update");
    let total: usize = data("tied")
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["input_ids"].as_array().unwrap().len())
        .sum();
    assert_eq!(metrics.iter().map(|line| line["tokens"].as_u64().unwrap()).sum::<u64>(), total as u64);
}

#[test]
fn a_token_budget_splits_an_update_and_hardly_changes_it() {
    let whole = short_run();
    whole.run_to_end();
    let mut split = short_run();
    split.set("max_tokens_per_pass", 1);
    split.run_to_end();
    for (one, other) in whole.metrics().iter().zip(split.metrics()) {
        for name in ["loss", "grad_norm"] {
            let (one, other) = (one[name].as_f64().unwrap(), other[name].as_f64().unwrap());
            assert!((one / other - 1.0).abs() < 1e-4, "{name}: {one} and {other}");
        }
    }
}

#[test]
fn an_update_without_labels_is_still_an_update() {
    let rows: String = data("tied")
        .lines()
        .zip(0..)
        .map(|(line, row)| {
            let mut row_value: Value = serde_json::from_str(line).unwrap();
            if row < 4 {
                let length = row_value["input_ids"].as_array().unwrap().len();
                row_value["labels"] = json!(vec![-100; length]);
            }
            format!("{row_value}\n")
        })
        .collect();
    let mut stage = Stage::new(&model("model_tied"), &rows, short_run().config);
    stage.set("shuffle", false);
    stage.set("warmup_ratio", 0.0);
    let events = stage.run_to_end();
    assert!(crate::harness::warnings(&events)[0].contains("step 1: none of its samples has a label; rows 0, 1, 2, 3"));
    let metrics = stage.metrics();
    assert_eq!((&metrics[0]["loss"], &metrics[0]["grad_norm"]), (&json!(0.0), &json!(0.0)));
    assert!(metrics[1]["loss"].as_f64().unwrap() > 1.0);
}
