//! A value that is not finite is traced to its layer and samples.

use pipe_nn::{Model, Precision};
use tch::Tensor;

use crate::fixtures::{Row, load, lora, options, pack};

fn model() -> Model {
    load("model_untied", &options(Precision::Fp32, lora(&["embed_tokens", "lm_head"])))
}

fn rows() -> [Row; 2] {
    [[5, 6, 7], [8, 9, 6]].map(|ids: [u32; 3]| Row { ids: ids.to_vec(), labels: ids.map(|id| id as i32).to_vec() })
}

/// Changes parameters by name, runs a pass, and asks where its loss comes from.
fn diagnose(change: impl Fn(&str, &mut Tensor)) -> String {
    let mut model = model();
    for parameter in model.parameters_mut() {
        let mut value = parameter.value().unwrap();
        change(&parameter.name, &mut value);
        parameter.set_value(&value).unwrap();
    }
    let batch = pack(&rows(), 0);
    let _ = model.forward_backward(&batch, batch.labels(), 0).unwrap();
    model.diagnose(&batch, batch.labels(), 0)
}

/// An adapter of finite weights whose product overflows, unless its input is zero.
fn overflow(name: &str, value: &mut Tensor, module: &str) {
    if name.contains(module) {
        let _ = value.fill_(if name.contains("lora_A") { 1e20 } else { 3e38 });
    }
}

#[test]
fn weights_are_named() {
    let finding = diagnose(|name, value| {
        if name.ends_with("layers.1.mlp.gate_proj.lora_A.weight") {
            let _ = value.get(0).fill_(f64::NAN);
        }
    });
    assert_eq!(finding, "the weights of base_model.model.model.layers.1.mlp.gate_proj.lora_A.weight are not finite");
}

#[test]
fn a_layer_and_its_samples_are_named() {
    let finding = diagnose(|name, value| overflow(name, value, "layers.1.mlp.down_proj"));
    assert_eq!(finding, "the output of layer 1 (model.layers.1) is not finite, in samples 100, 101");
    // The first sample's tokens are embedded as zeros, which no adapter can raise.
    let finding = diagnose(|name, value| {
        overflow(name, value, "layers.0.mlp.down_proj");
        if name.contains("embed_tokens") {
            let _ = value.narrow(0, 5, 3).zero_();
        }
    });
    assert_eq!(finding, "the output of layer 0 (model.layers.0) is not finite, in sample 101");
}

#[test]
fn the_head_is_named() {
    let finding = diagnose(|name, value| {
        if name.ends_with("lm_head.weight") {
            let _ = value.get(3).fill_(3e38);
        }
    });
    assert!(finding.starts_with("the loss, behind the last norm and the head, is not finite, in sample"), "{finding}");
}

#[test]
fn a_sound_pass_is_called_sound() {
    assert_eq!(diagnose(|_, _| ()), "a second run of the pass gave finite values");
}
