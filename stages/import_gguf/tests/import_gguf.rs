//! The stage as the engine runs it: a GGUF file in, a Hugging Face folder out.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{fs, path::Path};

use pipe_gguf::{Array, GgufTensor, GgufWriter, Metadata, TensorType, Value as GgufValue};
use pipe_hf::{Checkpoint, ModelConfig};
use pipe_trial::{Ran, Trial};
use serde_json::{Value, json};
use stage_import_gguf::ImportGguf;

/// Values of which Q8_0 loses none: whole numbers, with 127 in every block.
fn rows(rows: usize, columns: usize) -> Vec<f32> {
    let value = |index: usize| if index.is_multiple_of(32) { 127.0 } else { (index * 7 % 200) as f32 - 100.0 };
    (0..rows * columns).map(value).collect()
}

fn metadata() -> Metadata {
    let mut metadata = Metadata::new();
    metadata.set("general.architecture", "llama");
    for (key, count) in [
        ("block_count", 1_u32),
        ("context_length", 128),
        ("embedding_length", 32),
        ("feed_forward_length", 64),
        ("attention.head_count", 4),
        ("attention.head_count_kv", 2),
        ("rope.dimension_count", 8),
    ] {
        metadata.set(format!("llama.{key}"), count);
    }
    metadata.set("llama.rope.freq_base", 100_000.0_f32);
    metadata.set("llama.attention.layer_norm_rms_epsilon", 1e-5_f32);
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", "smollm");
    let texts = |texts: &[&str]| GgufValue::Array(Array::String(texts.iter().map(|text| (*text).to_owned()).collect()));
    metadata.set("tokenizer.ggml.tokens", texts(&["<|end|>", "Ġ", "a", "Ġa", "[PAD4]"]));
    metadata.set("tokenizer.ggml.token_type", GgufValue::Array(Array::I32(vec![3, 1, 1, 1, 5])));
    metadata.set("tokenizer.ggml.merges", texts(&["Ġ a"]));
    metadata.set("tokenizer.ggml.eos_token_id", 0_u32);
    metadata.set("tokenizer.chat_template", "{{ messages }}");
    metadata
}

fn write(path: &Path, metadata: &Metadata, extra: Option<&str>) {
    let mut shapes = vec![
        ("token_embd.weight", TensorType::Q8_0, vec![5, 32]),
        ("output_norm.weight", TensorType::F32, vec![32]),
        ("blk.0.attn_norm.weight", TensorType::F32, vec![32]),
        ("blk.0.ffn_norm.weight", TensorType::F32, vec![32]),
        ("blk.0.attn_q.weight", TensorType::Q8_0, vec![32, 32]),
        ("blk.0.attn_k.weight", TensorType::F16, vec![16, 32]),
        ("blk.0.attn_v.weight", TensorType::F16, vec![16, 32]),
        ("blk.0.attn_output.weight", TensorType::F32, vec![32, 32]),
        ("blk.0.ffn_gate.weight", TensorType::F32, vec![64, 32]),
        ("blk.0.ffn_up.weight", TensorType::F32, vec![64, 32]),
        ("blk.0.ffn_down.weight", TensorType::F32, vec![32, 64]),
    ];
    shapes.extend(extra.map(|name| (name, TensorType::F32, vec![4])));
    let tensors: Vec<GgufTensor> = shapes
        .into_iter()
        .map(|(name, tensor_type, shape)| GgufTensor { name: name.to_owned(), tensor_type, shape })
        .collect();
    let writer = GgufWriter::create(path, metadata, &tensors).unwrap();
    for tensor in &tensors {
        let columns = *tensor.shape.last().unwrap();
        let values = rows(tensor.shape.iter().product::<usize>() / columns, columns);
        writer.write_range(&tensor.name, 0, &tensor.tensor_type.encode(&values).unwrap()).unwrap();
    }
    writer.finish().unwrap();
}

fn import(folder: &Path, config: Value) -> Ran {
    Trial::new(&folder.join("out")).input("model", &folder.join("in")).run::<ImportGguf>(config)
}

fn refused(metadata: &Metadata, extra: Option<&str>) -> String {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    write(&folder.path().join("in/model.gguf"), metadata, extra);
    import(folder.path(), json!({})).error()
}

#[test]
fn a_llama_file_becomes_a_folder_in_the_order_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("in")).unwrap();
    write(&folder.path().join("in/model.gguf"), &metadata(), None);
    let ran = import(folder.path(), json!({})).done().unwrap();
    let config = ModelConfig::open(&ran.output()).unwrap();
    assert_eq!((config.head_dim, config.rope_theta, config.rms_norm_eps), (8, 100_000.0, 1e-5));
    assert!(config.tie_word_embeddings && config.eos_token_ids == [0] && config.vocab_size == 5);
    let weights = Checkpoint::open(&ran.output()).unwrap();
    weights.check(&config).unwrap();
    let read = |name: &str| weights.read_f32(name).unwrap();
    assert_eq!(read("model.layers.0.self_attn.v_proj.weight"), rows(16, 32));
    assert_eq!(read("model.layers.0.mlp.down_proj.weight"), rows(32, 64));
    let (found, file) = (read("model.layers.0.self_attn.q_proj.weight"), rows(32, 32));
    // Pairs of neighbours in the file are halves of a head here: row 8 + 5 was pair 1 of the second half of its head.
    for (ours, theirs) in [(0, 0), (1, 2), (4, 1), (13, 11), (31, 31)] {
        assert_eq!(found[ours * 32..][..32], file[theirs * 32..][..32], "{ours}");
    }
    let tokenizer: Value = serde_json::from_slice(&fs::read(ran.output().join("tokenizer.json")).unwrap()).unwrap();
    assert_eq!(tokenizer["model"]["vocab"], json!({ "<|end|>": 0, "Ġ": 1, "a": 2, "Ġa": 3 }));
    assert_eq!(tokenizer["model"]["merges"], json!([["Ġ", "a"]]));
    assert_eq!(tokenizer["added_tokens"][0]["content"], json!("<|end|>"));
    assert_eq!(tokenizer["pre_tokenizer"]["pretokenizers"][0]["type"], json!("Digits"));
    assert_eq!(fs::read_to_string(ran.output().join("chat_template.jinja")).unwrap(), "{{ messages }}");
}

#[test]
fn several_files_must_be_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let input = folder.path().join("in");
    fs::create_dir(&input).unwrap();
    assert!(import(folder.path(), json!({})).error().contains("has no file that ends in .gguf"));
    write(&input.join("a.gguf"), &metadata(), None);
    write(&input.join("b.gguf"), &metadata(), None);
    assert!(import(folder.path(), json!({})).error().contains("several files that end in .gguf: a.gguf, b.gguf"));
    assert!(import(folder.path(), json!({ "file": "b.gguf", "dtype": "bf16" })).result.is_ok());
    let problems = |file: &str| pipe_trial::problems::<ImportGguf>(json!({ "file": file }), &["model"]).len();
    assert_eq!([problems("../a.gguf"), problems("/a.gguf"), problems(""), problems("x/a.gguf")], [1, 1, 1, 0]);
}

#[test]
fn what_is_not_supported_is_named() {
    let with = |key: &str, value: GgufValue| {
        let mut metadata = metadata();
        metadata.set(key, value);
        refused(&metadata, None)
    };
    let cases = [
        ("general.architecture", GgufValue::from("gemma"), "`gemma` is not supported"),
        ("general.type", GgufValue::from("adapter"), "is no whole model"),
        ("llama.rope.scaling.type", GgufValue::from("yarn"), "only an unscaled rotary embedding"),
        ("llama.expert_count", GgufValue::from(8_u32), "mixtures of experts"),
        ("llama.rope.dimension_count", GgufValue::from(4_u32), "partial rotary embedding"),
        ("tokenizer.ggml.model", GgufValue::from("llama"), "only gpt2 (byte-level BPE) is"),
        ("tokenizer.ggml.pre", GgufValue::from("bloom"), "`bloom` is not known"),
        ("llama.feed_forward_length", GgufValue::from(32_u32), "its metadata say [32, 32]"),
    ];
    for (key, value, expected) in cases {
        let error = with(key, value);
        assert!(error.contains(expected), "{key}: {error}");
    }
    assert!(refused(&metadata(), Some("blk.0.attn_q.scale")).contains("is no part of a llama model"));
}
