//! Small models and adapters of random weights.

use std::{collections::BTreeMap, fs, path::Path};

use pipe_hf::{Dtype, ModelConfig, TensorSpec, narrow, write_safetensors};
use pipe_nf4::{QuantizedTensor, SourceType, suffix};
use serde_json::{Value, json};

pub(crate) type Tensors = BTreeMap<String, (Vec<usize>, Vec<f32>)>;

/// Rows of 40 make the blocks of NF4 run across them.
pub(crate) fn config(tied: bool) -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 24, "hidden_size": 40,
        "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 8, "hidden_act": "silu", "max_position_embeddings": 64, "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0, "tie_word_embeddings": tied,
    })
}

pub(crate) fn draw(random: &mut fastrand::Rng, count: usize) -> Vec<f32> {
    (0..count).map(|_| random.f32() - 0.5).collect()
}

/// Writes a model in float32, or in NF4; returns its weights, or those that it stands for.
pub(crate) fn write_model(dir: &Path, tied: bool, quantised: bool) -> Tensors {
    fs::create_dir_all(dir).unwrap();
    let mut fields = config(tied);
    let model = ModelConfig::from_object(dir, fields.as_object().unwrap().clone()).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let (mut tensors, mut written) = (Tensors::new(), Vec::new());
    for parameter in model.parameters() {
        let mut values = draw(&mut random, parameter.shape.iter().product());
        let name = parameter.name.clone();
        if quantised && parameter.role == pipe_hf::Role::Linear {
            let tensor = QuantizedTensor::quantize(&values, &parameter.shape, SourceType::Float32, false).unwrap();
            values = tensor.dequantize();
            let pipe_nf4::Absmax::Plain(absmax) = tensor.absmax() else { unreachable!() };
            let floats = |values: &[f32]| narrow(Dtype::F32, values).unwrap();
            let state = tensor.state().to_json().into_bytes();
            let mut put = |end: &str, dtype, shape: &[usize], bytes| {
                written.push((TensorSpec::new(format!("{name}{end}"), dtype, shape), bytes));
            };
            put("", Dtype::U8, &[tensor.packed().len(), 1], tensor.packed().to_vec());
            put(suffix::ABSMAX, Dtype::F32, &[absmax.len()], floats(absmax));
            put(suffix::QUANT_MAP, Dtype::F32, &[16], floats(&pipe_nf4::CODE_VALUES));
            put(suffix::QUANT_STATE, Dtype::U8, &[state.len()], state);
        } else {
            let spec = TensorSpec::new(&name, Dtype::F32, parameter.shape.clone());
            written.push((spec, narrow(Dtype::F32, &values).unwrap()));
        }
        tensors.insert(name, (parameter.shape, values));
    }
    if quantised {
        fields["quantization_config"] = json!({
            "quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4",
        });
    }
    fs::write(dir.join("config.json"), fields.to_string()).unwrap();
    write(&dir.join("model.safetensors"), &written);
    tensors
}

fn write(path: &Path, tensors: &[(TensorSpec, Vec<u8>)]) {
    let borrowed: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    write_safetensors(path, &borrowed).unwrap();
}

/// Writes an adapter with these tensors; `settings` win over plain ones.
pub(crate) fn write_adapter(dir: &Path, tensors: &Tensors, settings: &Value) {
    fs::create_dir_all(dir).unwrap();
    let mut fields = json!({
        "peft_type": "LORA", "r": 3, "lora_alpha": 5, "use_rslora": true, "target_modules": ["q_proj", "down_proj"],
    });
    fields.as_object_mut().unwrap().extend(settings.as_object().unwrap().clone());
    fs::write(dir.join("adapter_config.json"), fields.to_string()).unwrap();
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, (shape, values))| {
            (
                TensorSpec::new(format!("base_model.model.{name}.weight"), Dtype::F32, shape.clone()),
                narrow(Dtype::F32, values).unwrap(),
            )
        })
        .collect();
    write(&dir.join("adapter_model.safetensors"), &tensors);
}

/// Factors of rank 3 for a layer.
pub(crate) fn add_pair(tensors: &mut Tensors, module: &str, outputs: usize, inputs: usize, random: &mut fastrand::Rng) {
    tensors.insert(format!("{module}.lora_A"), (vec![3, inputs], draw(random, 3 * inputs)));
    tensors.insert(format!("{module}.lora_B"), (vec![outputs, 3], draw(random, 3 * outputs)));
}

/// The adapter of most tests: queries of both layers and one down projection.
pub(crate) fn pairs() -> Tensors {
    let (mut tensors, mut random) = (Tensors::new(), fastrand::Rng::with_seed(9));
    for layer in 0..2 {
        add_pair(&mut tensors, &format!("model.layers.{layer}.self_attn.q_proj"), 32, 40, &mut random);
    }
    add_pair(&mut tensors, "model.layers.1.mlp.down_proj", 40, 72, &mut random);
    tensors
}
