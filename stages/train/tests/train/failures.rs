//! What a user gets wrong, and what breaks.

use pipe_stage::FailureClass;
use serde_json::json;

use crate::harness::{Stage, changed_base, data, model, short_run, warnings};

/// The tied model with a NaN in the second layer.
fn broken_base(stage: &Stage) -> std::path::PathBuf {
    changed_base(stage, "model.layers.1.mlp.up_proj.weight", |values| values[0] = f32::NAN)
}

#[test]
fn a_loss_that_is_not_finite_names_step_samples_and_layer() {
    let mut stage = short_run();
    stage.inputs.insert("base".to_owned(), broken_base(&stage));
    let (failure, message) = stage.run_to_failure();
    assert_eq!(failure.class(), FailureClass::Stage);
    assert!(message.starts_with("step 1: the loss is NaN; samples (rows counted from 0): "), "{message}");
    assert!(message.contains("model.layers.1") && !message.contains("model.layers.0"), "{message}");
    assert!(!stage.output().join("adapter_model.safetensors").exists());
}

/// In float16 such an update may be a scale that is too large: it is left out until the scale is below 1.
#[test]
fn in_float16_a_loss_that_stays_not_finite_stops_the_stage_too() {
    let mut stage = short_run();
    stage.set("fp16", true);
    stage.set("max_steps", 30);
    stage.inputs.insert("base".to_owned(), broken_base(&stage));
    let (failure, message) = stage.run_to_failure();
    assert_eq!(failure.class(), FailureClass::Stage);
    // 65536 is halved by each of 17 updates.
    assert!(message.starts_with("step 18: the loss is NaN; samples (rows counted from 0): "), "{message}");
    assert!(message.contains("model.layers.1") && !message.contains("model.layers.0"), "{message}");
    // Too short to tell.
    let mut stage = short_run();
    stage.set("fp16", true);
    stage.set("max_steps", 5);
    stage.inputs.insert("base".to_owned(), broken_base(&stage));
    let (_, message) = stage.run_to_failure();
    assert!(message.starts_with("none of the 5 updates had gradients in the range of float16"), "{message}");
}

#[test]
fn an_update_that_breaks_the_weights_stops_the_next_one() {
    let mut stage = short_run();
    stage.set("learning_rate", 1e30);
    stage.set("warmup_ratio", 0.0);
    let (_, message) = stage.run_to_failure();
    assert!(message.starts_with("step "), "{message}");
    assert!(message.contains("not finite"), "{message}");
    stage.set("max_steps", 2);
    let (_, message) = stage.run_to_failure();
    assert!(message.starts_with("the last update, step 2, made the weights of base_model.model."), "{message}");
}

#[test]
fn samples_of_another_vocabulary_are_named_before_training() {
    let rows = format!("{}{}", data("tied"), "{\"input_ids\": [1, 2, 512], \"labels\": [1, 2, -100]}\n");
    let stage = Stage::new(&model("model_tied"), &rows, short_run().config);
    let (_, message) = stage.run_to_failure();
    assert!(
        message.contains("row 46 of `samples` has the token 512, and the base has a vocabulary of 512"),
        "{message}"
    );
}

#[test]
fn samples_without_labels_are_refused() {
    let rows = "{\"input_ids\": [1, 2, 3], \"labels\": [1, -100, -100]}\n";
    let (_, message) = Stage::new(&model("model_tied"), rows, short_run().config).run_to_failure();
    assert!(message.contains("none of the 1 samples of `samples` has a label"), "{message}");
    let (_, message) = Stage::new(&model("model_tied"), "", short_run().config).run_to_failure();
    assert!(message.contains("none of the 0 samples"), "{message}");
    let mut stage = short_run();
    stage.add_samples("eval", rows);
    assert!(stage.run_to_failure().1.contains("none of the 1 samples of `eval` has a label"));
}

#[test]
fn a_tied_base_takes_both_names_or_neither() {
    let mut stage = short_run();
    stage.config["lora"]["modules_to_save"] = json!(["lm_head"]);
    let (_, message) = stage.run_to_failure();
    assert!(message.contains("names `lm_head` alone") && message.contains("name both"), "{message}");
}

#[test]
fn a_base_in_4_bits_is_not_packed_in_8() {
    let mut stage = short_run();
    stage.set("load_in_8bit", true);
    stage.inputs.insert("base".to_owned(), model("bnb4_tied"));
    let (_, message) = stage.run_to_failure();
    assert!(message.contains("quantised to 4 bits already, and `load_in_8bit`"), "{message}");
}

#[test]
fn an_adapter_that_does_not_fit_is_refused() {
    let first = short_run();
    first.run_to_end();
    let mut second = short_run();
    second.inputs.insert("adapter".to_owned(), first.output());
    second.run_to_end();
    second.config["lora"]["r"] = json!(8);
    let (_, message) = second.run_to_failure();
    assert!(message.contains("has r 4, and this stage says `lora.r: 8`"), "{message}");
}

#[test]
fn a_gpu_that_is_not_there_is_the_machines_fault() {
    let mut stage = short_run();
    stage.resources.gpus = 2;
    let (failure, message) = stage.run_to_failure();
    assert_eq!(failure.class(), FailureClass::Environment);
    assert!(message.contains("asks for 2 GPUs"), "{message}");
}

#[test]
fn a_base_that_was_quantised_for_another_type_gets_a_warning() {
    let mut stage = short_run();
    stage.inputs.insert("base".to_owned(), model("bnb4_tied"));
    let warnings = warnings(&stage.run_to_end());
    assert!(
        warnings.iter().any(|text| text.contains("bnb_4bit_compute_dtype: bfloat16") && text.contains("bf16: false")),
        "{warnings:?}"
    );
    let mut stage = short_run();
    stage.inputs.insert("base".to_owned(), model("bnb4_tied"));
    stage.set("bf16", true);
    assert_eq!(crate::harness::warnings(&stage.run_to_end()), Vec::<String>::new());
}
