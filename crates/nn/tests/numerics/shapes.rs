//! Qwen2 and Llama shapes, and everything at once, by finite differences in float64.

use std::path::Path;

use pipe_hf::{Checkpoint, Dtype, ModelConfig, TensorSpec, write_safetensors};
use pipe_nn::{LoraConfig, Model, PackedBatch, Precision, TARGET_MODULES};
use serde_json::{Value, json};
use tch::{Kind, Tensor};

use crate::{
    fixtures::{Row, options, pack},
    testing::random,
};

/// Writes a model of random weights, norms near 1.
fn write_model(dir: &Path, config: &Value) {
    std::fs::write(dir.join("config.json"), config.to_string()).unwrap();
    let config = ModelConfig::open(dir).unwrap();
    let tensors: Vec<(TensorSpec, Vec<u8>)> = config
        .parameters()
        .into_iter()
        .zip(1..)
        .map(|(parameter, seed)| {
            let shape: Vec<i64> = parameter.shape.iter().map(|side| *side as i64).collect();
            let values = (random(&shape, seed) * 0.3).to_kind(Kind::Float);
            let values = if parameter.name.ends_with("norm.weight") { values + 1.0 } else { values };
            let values = Vec::<f32>::try_from(values.flatten(0, -1)).unwrap();
            let bytes = values.into_iter().flat_map(f32::to_le_bytes).collect();
            (TensorSpec::new(parameter.name, Dtype::F32, parameter.shape), bytes)
        })
        .collect();
    let tensors: Vec<(TensorSpec, &[u8])> =
        tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    write_safetensors(&dir.join("model.safetensors"), &tensors).unwrap();
    assert!(Checkpoint::open(dir).unwrap().check(&config).is_ok());
}

fn config(model_type: &str, class: &str, more: Value) -> Value {
    let mut config = json!({
        "architectures": [class], "model_type": model_type, "vocab_size": 24, "hidden_size": 12,
        "intermediate_size": 20, "num_hidden_layers": 2, "num_attention_heads": 3, "num_key_value_heads": 3,
        "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_theta": 10000.0,
        "tie_word_embeddings": false
    });
    config.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    config
}

fn rows() -> [Row; 2] {
    [vec![3, 7, 3, 1, 20], vec![0, 5, 3]].map(|ids: Vec<u32>| {
        let labels = ids.iter().map(|id| *id as i32).collect();
        Row { ids, labels }
    })
}

fn mean_loss(model: &mut Model, batch: &PackedBatch) -> f64 {
    // With dropout, whose masks depend on the update alone.
    let loss = model.forward_backward(batch, batch.labels(), 3).unwrap();
    loss.sum_nll / loss.labels as f64
}

/// Compares the gradient along random directions, one a parameter and so every layer and use of it.
fn gradients_agree(config: &Value) {
    let dir = tempfile::tempdir().unwrap();
    write_model(dir.path(), config);
    let lora = LoraConfig {
        r: 2,
        lora_alpha: 3.0,
        target_modules: TARGET_MODULES.map(str::to_owned).to_vec(),
        lora_dropout: 0.3,
        use_rslora: true,
        modules_to_save: vec!["embed_tokens".to_owned(), "lm_head".to_owned()],
    };
    let mut model = Model::load(dir.path(), &options(Precision::Fp64, lora)).unwrap();
    for (parameter, seed) in model.parameters_mut().iter_mut().zip(100..) {
        if parameter.name.contains("lora") {
            let value = random(parameter.size(), seed) * 0.3;
            parameter.set_value(&value).unwrap();
        }
    }
    let batch = pack(&rows(), 0);
    mean_loss(&mut model, &batch);
    let written: Vec<Tensor> = model.parameters().iter().map(|parameter| parameter.grad().unwrap().copy()).collect();
    for (index, gradient) in written.iter().enumerate() {
        let direction = random(&gradient.size(), index as u64).to_device(gradient.device());
        let expected = (gradient * &direction).sum(None::<Kind>).double_value(&[]);
        let mut at = |offset: f64| {
            let value = model.parameters()[index].value().unwrap().copy();
            model.parameters_mut()[index].set_value(&(&value + &direction * offset)).unwrap();
            let loss = mean_loss(&mut model, &batch);
            model.parameters_mut()[index].set_value(&value).unwrap();
            loss
        };
        let measured = (at(1e-6) - at(-1e-6)) / 2e-6;
        let name = &model.parameters()[index].name;
        assert!(
            (measured - expected).abs() < 1e-7 * (1.0 + expected.abs()),
            "{name}: measured {measured}, written {expected}"
        );
        assert!(gradient.abs().max().double_value(&[]) > 0.0, "{name} has a gradient");
    }
}

#[test]
fn qwen2_with_biases_and_grouped_heads() {
    gradients_agree(&config(
        "qwen2",
        "Qwen2ForCausalLM",
        json!({ "num_attention_heads": 6, "num_key_value_heads": 2, "tie_word_embeddings": true }),
    ));
}

#[test]
fn llama() {
    gradients_agree(&config("llama", "LlamaForCausalLM", json!({ "attention_bias": true })));
}

#[test]
fn qwen3_with_wide_heads() {
    gradients_agree(&config("qwen3", "Qwen3ForCausalLM", json!({ "head_dim": 6 })));
}

/// The padding token's row of the embedding gets no gradient from being read, only from the head where they are tied.
#[test]
fn the_padding_row_has_no_gradient() {
    let saved = |modules: &[&str]| LoraConfig {
        modules_to_save: modules.iter().map(|name| (*name).to_owned()).collect(),
        ..LoraConfig::default()
    };
    let gradient = |padding: Value, tied: bool| {
        let dir = tempfile::tempdir().unwrap();
        write_model(
            dir.path(),
            &config(
                "qwen3",
                "Qwen3ForCausalLM",
                json!({ "head_dim": 4, "pad_token_id": padding, "tie_word_embeddings": tied }),
            ),
        );
        let mut model = Model::load(dir.path(), &options(Precision::Fp64, saved(&["embed_tokens"]))).unwrap();
        mean_loss(&mut model, &pack(&rows(), 0));
        model.parameters()[0].grad().unwrap().copy()
    };
    let row_is_zero = |gradient: &Tensor| gradient.get(3).abs().max().double_value(&[]) == 0.0;
    assert!(row_is_zero(&gradient(json!(3), false)));
    assert!(!row_is_zero(&gradient(Value::Null, false)));
    let (with, without) = (gradient(json!(3), true), gradient(Value::Null, true));
    assert!(!row_is_zero(&with) && !with.get(3).equal(&without.get(3)), "the head's part remains");
    assert!(with.get(5).equal(&without.get(5)), "other rows are as before");
}
