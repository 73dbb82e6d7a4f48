//! Thirty updates of Transformers' Trainer on PEFT models, step by step: losses, norms, learning rates, and the adapter.
//!
//! Tolerances, relative: float32 1e-5 for the loss, 3e-5 for the norm, and 1e-5 root mean square for the weights, a few
//! times what two honest implementations of the reference differ by; bfloat16 1e-2, 3e-2 and 1e-3; float16 against runs in
//! float32 5e-4, 2e-3 and 5e-4. On a GPU, whose sums are of another order, float32 is within 1e-4.

use std::{fs, path::Path};

use pipe_hf::{AdapterConfig, Checkpoint};
use serde_json::{Value, json};

use crate::harness::{Stage, data, fixture, model, on_gpu};

struct Tolerance {
    loss: f64,
    grad_norm: f64,
    weights_rms: f64,
}

const FLOAT32: Tolerance = Tolerance { loss: 1e-5, grad_norm: 3e-5, weights_rms: 1e-5 };
const FLOAT16: Tolerance = Tolerance { loss: 5e-4, grad_norm: 2e-3, weights_rms: 5e-4 };
const FLOAT32_ON_GPU: Tolerance = Tolerance { loss: 1e-4, grad_norm: 1e-4, weights_rms: 1e-4 };
const BFLOAT16: Tolerance = Tolerance { loss: 1e-2, grad_norm: 3e-2, weights_rms: 1e-3 };

#[test]
fn tied_rslora_linear() {
    follow("tied_rslora_linear", float32());
}

#[test]
fn tied_norslora_cosine_clip_wd() {
    follow("tied_norslora_cosine_clip_wd", float32());
}

#[test]
fn tied_mts_ensure_tying() {
    follow("tied_mts_ensure_tying", float32());
}

#[test]
fn untied_mts_cosine_wd() {
    follow("untied_mts_cosine_wd", float32());
}

#[test]
fn tied_nf4() {
    follow("tied_nf4", float32());
}

#[test]
fn untied_nf4_mts() {
    follow("untied_nf4_mts", float32());
}

#[test]
fn untied_nf4_bf16_autocast() {
    follow("untied_nf4_bf16_autocast", BFLOAT16);
}

/// With tables that are trained whole, and with clipping and decay.
#[test]
fn float16_follows_float32() {
    for run in ["tied_mts_ensure_tying", "tied_norslora_cosine_clip_wd", "untied_nf4_mts"] {
        follow_with(run, true, FLOAT16);
    }
}

fn float32() -> Tolerance {
    if on_gpu() { FLOAT32_ON_GPU } else { FLOAT32 }
}

fn follow(run: &str, tolerance: Tolerance) {
    follow_with(run, false, tolerance);
}

fn follow_with(run: &str, fp16: bool, tolerance: Tolerance) {
    let reference: Value =
        serde_json::from_slice(&fs::read(fixture("runs").join(run).join("run.json")).unwrap()).unwrap();
    let mut stage = stage(run, &reference["hyper"]);
    stage.set("fp16", fp16);
    stage.run_to_end();

    let (steps, expected) = (stage.metrics(), reference["steps"].as_array().unwrap());
    assert_eq!(steps.len(), expected.len());
    if fp16 {
        assert!(steps.iter().all(|step| step["loss_scale"]["skipped"] == false), "{run}: an update was left out");
    }
    let number = |value: &Value| value.as_f64().unwrap();
    for (found, expected) in steps.iter().zip(expected) {
        let step = &expected["step"];
        assert_eq!(&found["step"], step);
        let rate_error = number(&found["learning_rate"]) - number(&expected["lr"]);
        assert!(rate_error.abs() <= 1e-6 * number(&reference["hyper"]["lr"]), "step {step}: learning rate");
        for (name, tolerance) in [("loss", tolerance.loss), ("grad_norm", tolerance.grad_norm)] {
            let (found, expected) = (number(&found[name]), number(&expected[name]));
            let error = (found / expected - 1.0).abs();
            assert!(error <= tolerance, "step {step}: {name} {found}, expected {expected}, off by {error:.1e}");
        }
    }
    let rms = weights_rms(&stage.output(), &fixture("runs").join(run));
    assert!(rms <= tolerance.weights_rms, "weights off by {rms:.1e} root mean square");
}

/// The reference's hyper-parameters as this stage's.
fn stage(run: &str, hyper: &Value) -> Stage {
    let name = hyper["model"].as_str().unwrap();
    let base = hyper["base"].as_str().unwrap();
    let folder = if base.starts_with("nf4") { format!("bnb4_{name}") } else { format!("model_{name}") };
    let mut lora = json!({
        "r": hyper["r"], "lora_alpha": hyper["alpha"], "target_modules": hyper["target_modules"],
        "lora_dropout": 0.0, "use_rslora": hyper["rslora"],
    });
    if hyper["modules_to_save"].is_array() {
        lora["modules_to_save"] = hyper["modules_to_save"].clone();
    }
    let mut config = json!({
        "lora": lora, "learning_rate": hyper["lr"], "lr_scheduler_type": hyper["sched"], "weight_decay": hyper["wd"],
        "max_grad_norm": hyper["clip"], "adam_beta1": hyper["betas"][0], "adam_beta2": hyper["betas"][1],
        "adam_epsilon": hyper["eps"], "max_steps": hyper["steps"], "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": hyper["accum"], "gradient_checkpointing": true, "bf16": base == "nf4_bf16",
        "seed": hyper["seed"],
    });
    match hyper["warmup"].as_f64().unwrap() {
        ratio if ratio > 0.0 && ratio < 1.0 => config["warmup_ratio"] = json!(ratio),
        steps => config["warmup_steps"] = json!(steps as u64),
    }
    let mut stage = Stage::new(&model(&folder), &data(name), config);
    stage.inputs.insert("adapter".to_owned(), start(run, &stage));
    stage
}

/// A PEFT folder of the LoRA tensors that the reference started from.
fn start(run: &str, stage: &Stage) -> std::path::PathBuf {
    let folder = stage.resume().with_file_name("start");
    fs::create_dir(&folder).unwrap();
    let reference = fixture("runs").join(run);
    fs::copy(reference.join("init.safetensors"), folder.join("adapter_model.safetensors")).unwrap();
    let mut config = AdapterConfig::open(&reference).unwrap();
    config.modules_to_save.clear();
    config.write(&folder).unwrap();
    folder
}

/// Root mean square of the difference over all values of two adapters of the same keys.
fn weights_rms(ours: &Path, reference: &Path) -> f64 {
    let open = |folder: &Path| Checkpoint::open_file(&folder.join("adapter_model.safetensors")).unwrap();
    let (ours, reference) = (open(ours), open(reference));
    assert_eq!(ours.names().collect::<Vec<_>>(), reference.names().collect::<Vec<_>>());
    let (mut sum, mut count) = (0.0, 0.0);
    for name in reference.names() {
        let (ours, expected) = (ours.read_f32(name).unwrap(), reference.read_f32(name).unwrap());
        sum += ours.iter().zip(&expected).map(|(one, other)| f64::from(one - other).powi(2)).sum::<f64>();
        count += expected.len() as f64;
    }
    (sum / count).sqrt()
}
