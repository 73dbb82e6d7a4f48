//! A run that was stopped ends with the bytes of one that was not.

use std::fs;

use pipe_stage::FailureClass;
use serde_json::{Value, json};

use crate::harness::{Stage, changed_base, data, on_gpu, short_run, warnings};

fn with_evaluation() -> Stage {
    let mut stage = short_run();
    stage.add_samples("eval", &data("tied").lines().take(4).collect::<Vec<_>>().join("\n"));
    stage.set("eval_steps", 4);
    stage
}

fn checkpoints(stage: &Stage) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(stage.resume()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn the_same_run_gives_the_same_bytes() {
    for bf16 in [false, true] {
        let [one, other] = [(); 2].map(|()| {
            let mut stage = with_evaluation();
            stage.set("bf16", bf16);
            stage.run_to_end();
            stage.artifact()
        });
        assert!(one == other, "bf16: {bf16}");
    }
}

#[test]
fn stopped_at_any_step_and_run_again_the_bytes_are_the_same() {
    let whole = with_evaluation();
    whole.run_to_end();
    let expected = whole.artifact();
    assert!(expected.len() >= 5, "{:?}", expected.keys());
    for stop_at in [1, 4, 5, 7, 10] {
        let mut stage = with_evaluation();
        stage.stop_at = Some(stop_at);
        let (failure, _) = stage.run_to_failure();
        assert_eq!(failure.class(), FailureClass::Cancelled);
        // A GPU is an update ahead of what it reports.
        assert!((stop_at..=stop_at + u64::from(on_gpu())).contains(&stage.saved()), "{:?}", checkpoints(&stage));
        stage.stop_at = None;
        stage.run_to_end();
        assert!(stage.artifact() == expected, "stopped at step {stop_at}");
    }
}

/// A run that is killed has only its last regular checkpoint, and maybe a damaged one.
#[test]
fn killed_between_checkpoints_or_while_saving_the_bytes_are_the_same() {
    let whole = with_evaluation();
    whole.run_to_end();
    let mut stage = with_evaluation();
    stage.stop_at = Some(7);
    stage.run_to_failure();
    let names = checkpoints(&stage);
    assert_eq!(names.len(), 2, "steps 5 and 7: {names:?}");
    let tensors = stage.resume().join(&names[1]).join("tensors.f32");
    let bytes = fs::read(&tensors).unwrap();
    fs::write(&tensors, &bytes[..bytes.len() / 2]).unwrap();
    stage.stop_at = None;
    let events = stage.run_to_end();
    let warnings = warnings(&events);
    assert!(warnings.iter().any(|warning| warning.contains("is damaged (tensors.f32 was changed)")), "{warnings:?}");
    assert!(stage.artifact() == whole.artifact());
}

#[test]
fn stopping_again_and_again_gets_there() {
    gets_there(short_run);
}

#[test]
fn stopping_again_and_again_with_states_in_8_bits_gets_there() {
    gets_there(in_8_bits);
}

/// All that the configuration before the optimisation has: float16, a base in 8 bits, adapters everywhere.
#[test]
fn stopping_again_and_again_with_a_base_in_8_bits_gets_there() {
    gets_there(|| {
        let mut stage = short_run();
        stage.set("fp16", true);
        stage.set("load_in_8bit", true);
        stage.config["lora"] = json!({
            "r": 4, "lora_alpha": 8,
            "target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
        });
        stage
    });
}

/// In float16, on a model whose gradients overflow until the scale is some times smaller.
fn overflowing() -> Stage {
    let mut stage = short_run();
    stage.set("fp16", true);
    let base = changed_base(&stage, "model.norm.weight", |values| values.iter_mut().for_each(|value| *value *= 30.0));
    stage.inputs.insert("base".to_owned(), base);
    stage
}

#[test]
fn stopping_again_and_again_in_float16_gets_there() {
    gets_there(overflowing);
}

/// As Trainer does it: the samples go on, the schedule waits, and the first update that counts is the first of AdamW.
#[test]
fn an_update_that_leaves_float16_is_left_out() {
    let stage = overflowing();
    stage.run_to_end();
    let metrics = stage.metrics();
    let skips = |line: &Value| line["loss_scale"]["skipped"] == true;
    assert!(skips(&metrics[0]) && !metrics.iter().all(skips) && metrics[1..].iter().any(skips), "{metrics:?}");
    let (mut scale, mut good_updates, mut applied) = (65536.0, 0, 0);
    for line in &metrics {
        let skipped = skips(line);
        let expected = json!({ "scale": scale, "good_updates": good_updates, "skipped": skipped });
        assert_eq!(line["loss_scale"], expected);
        assert_eq!(line["grad_norm"].is_null(), skipped, "{line}");
        // Warm-up of two updates, the first of them with the learning rate 0.
        let rate = 1e-3 * if applied < 2 { f64::from(applied) / 2.0 } else { f64::from(12 - applied) / 10.0 };
        assert!((line["learning_rate"].as_f64().unwrap() - rate).abs() < 1e-12, "{line}");
        (scale, good_updates) = if skipped { (scale / 2.0, 0) } else { (scale, good_updates + 1) };
        applied += i32::from(!skipped);
    }
}

fn in_8_bits() -> Stage {
    let mut stage = short_run();
    stage.set("optim", "adamw_8bit");
    stage
}

/// States in 8 bits learn what float32's learn.
#[test]
fn the_loss_with_states_in_8_bits_falls_as_with_float32() {
    let losses = |mut stage: Stage| {
        stage.set("max_steps", 40);
        stage.set("weight_decay", 0.0);
        stage.run_to_end();
        let artifact = stage.artifact();
        let losses = stage.metrics().iter().map(|line| line["loss"].as_f64().unwrap()).collect::<Vec<_>>();
        (losses, artifact)
    };
    let ((exact, weights), (coded, other_weights)) = (losses(short_run()), losses(in_8_bits()));
    assert_ne!(weights["adapter_model.safetensors"], other_weights["adapter_model.safetensors"]);
    let last = |losses: &[f64]| losses[losses.len() - 8..].iter().sum::<f64>() / 8.0;
    let (fall, coded_fall) = (exact[0] - last(&exact), coded[0] - last(&coded));
    assert!(fall > 0.2 && (coded_fall / fall - 1.0).abs() < 0.05, "{fall} {coded_fall}");
}

fn gets_there(short_run: fn() -> Stage) {
    let whole = short_run();
    whole.run_to_end();
    let mut stage = short_run();
    let mut saved = 0;
    while saved + 1 + u64::from(on_gpu()) < 12 {
        stage.stop_at = Some(saved + 1);
        stage.run_to_failure();
        assert!(stage.saved() > saved);
        saved = stage.saved();
    }
    stage.stop_at = None;
    stage.run_to_end();
    assert!(stage.artifact() == whole.artifact());
}

#[test]
fn the_recorded_number_of_threads_is_used() {
    let mut stage = short_run();
    stage.stop_at = Some(3);
    stage.run_to_failure();
    stage.resources.cpus = Some(7);
    stage.stop_at = Some(6);
    stage.run_to_failure();
    let name = checkpoints(&stage).pop().unwrap();
    let manifest = fs::read_to_string(stage.resume().join(name).join("manifest.json")).unwrap();
    assert!(stage.saved() >= 6 && manifest.contains("\"threads\": 1"), "{manifest}");
}

#[test]
fn no_execution_only_field_changes_a_byte() {
    let plain = short_run();
    plain.run_to_end();
    let mut other = short_run();
    for (field, value) in [
        ("gradient_checkpointing", json!(true)),
        ("cudnn_benchmark", json!(true)),
        ("logging_steps", json!(3)),
        ("monitor_gpu_memory", json!(false)),
        ("save_steps", json!(1)),
        ("save_total_limit", json!(1)),
        ("dataloader_num_workers", json!(2)),
        ("dataloader_pin_memory", json!(false)),
    ] {
        other.set(field, value);
    }
    other.run_to_end();
    assert!(plain.artifact() == other.artifact());
    assert_eq!(checkpoints(&other).len(), 1);
}
