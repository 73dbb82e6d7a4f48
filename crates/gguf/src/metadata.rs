//! What a file says of the shape of its model, or of its adapter.

use pipe_hf::{Architecture, ModelConfig};

use crate::{Metadata, TensorType};

/// The keys of a model of so many parameters, without those of its tokenizer.
///
/// # Source
/// llama.cpp's `convert_hf_to_gguf.py`: `TextModel.set_gguf_parameters` and its Llama, Qwen2 and Qwen3.
pub fn model_metadata(model: &ModelConfig, name: &str, parameters: u64, tensor_type: TensorType) -> Metadata {
    let architecture = model.architecture.model_type();
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", architecture);
    metadata.set("general.type", "model");
    metadata.set("general.name", name);
    metadata.set("general.size_label", size_label(parameters));
    let counts = [
        ("block_count", model.num_hidden_layers),
        ("context_length", model.max_position_embeddings),
        ("embedding_length", model.hidden_size),
        ("feed_forward_length", model.intermediate_size),
        ("attention.head_count", model.num_attention_heads),
        ("attention.head_count_kv", model.num_key_value_heads),
        ("attention.key_length", model.head_dim),
        ("attention.value_length", model.head_dim),
    ];
    for (key, count) in counts {
        metadata.set(format!("{architecture}.{key}"), word(count));
    }
    metadata.set(format!("{architecture}.rope.freq_base"), model.rope_theta as f32);
    metadata.set(format!("{architecture}.attention.layer_norm_rms_epsilon"), model.rms_norm_eps as f32);
    if model.architecture == Architecture::Llama {
        metadata.set("llama.vocab_size", word(model.vocab_size));
        metadata.set("llama.rope.dimension_count", word(model.head_dim));
    }
    metadata.set("general.file_type", tensor_type.file_type());
    metadata.set("general.quantization_version", 2_u32);
    metadata
}

/// The keys of a LoRA adapter of the rank `r` whose branch has the factor `scale`. llama.cpp computes `alpha / r` from
/// them, so a rank-stabilised scale is said by another alpha.
pub fn adapter_metadata(model: &ModelConfig, name: &str, r: usize, scale: f64) -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", model.architecture.model_type());
    metadata.set("general.type", "adapter");
    metadata.set("general.name", name);
    metadata.set("adapter.type", "lora");
    metadata.set("adapter.lora.alpha", (scale * r as f64) as f32);
    metadata.set("general.quantization_version", 2_u32);
    metadata
}

/// A count of a `config.json` came from 32 bits.
fn word(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

/// `131K`, `1.7B`: at least two digits.
fn size_label(parameters: u64) -> String {
    let count = parameters as f64;
    let (scaled, unit) = match parameters {
        1_000_000_000_000.. => (count * 1e-12, "T"),
        1_000_000_000.. => (count * 1e-9, "B"),
        1_000_000.. => (count * 1e-6, "M"),
        _ => (count * 1e-3, "K"),
    };
    let decimals = usize::from(scaled.round_ties_even() < 10.0) + usize::from(scaled.round_ties_even() < 1.0);
    format!("{scaled:.decimals$}{unit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_labelled_as_llama_cpp_does() {
        // gguf.utility.model_weight_count_rounded_notation of gguf 0.19.0.
        let cases = [(131_456, "131K"), (134_515_008, "135M"), (1_720_574_976, "1.7B"), (8_190_735_360, "8.2B")];
        for (count, label) in cases {
            assert_eq!(size_label(count), label);
        }
    }
}
