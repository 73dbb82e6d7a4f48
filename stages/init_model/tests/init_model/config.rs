//! Shapes, and what is refused.

use std::{fs, path::PathBuf};

use serde_json::json;
use stage_init_model::InitModel;

use crate::{config, init, made, tiny};

fn problems(fields: &str, inputs: &[&str]) -> Vec<String> {
    let found = pipe_trial::problems::<InitModel>(serde_json::from_str(fields).unwrap(), inputs).into_iter();
    found.map(|(path, message, _)| format!("{path}: {message}")).collect()
}

/// A tokenizer of 10 ordinary tokens and two special ones.
fn tokenizer(dir: &tempfile::TempDir) -> PathBuf {
    let folder = dir.path().join("tokenizer");
    fs::create_dir_all(&folder).unwrap();
    let vocab: serde_json::Map<_, _> = (0..10).map(|id| (format!("t{id}"), json!(id))).collect();
    let added = json!([{"id": 10, "content": "<|endoftext|>"}, {"id": 11, "content": "<|im_end|>"}]);
    let file = json!({"model": {"type": "BPE", "vocab": vocab, "merges": []}, "added_tokens": added});
    fs::write(folder.join("tokenizer.json"), file.to_string()).unwrap();
    let settings = json!({"eos_token": "<|im_end|>", "pad_token": {"content": "<|endoftext|>", "lstrip": false}});
    fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
    fs::write(folder.join("chat_template.jinja"), "{{ messages }}").unwrap();
    folder
}

#[test]
fn presets_are_the_published_shapes() {
    for (preset, millions) in [("qwen3-0.6b", 596), ("qwen3-1.7b", 1_720), ("qwen3-4b", 4_022), ("qwen3-8b", 8_190)] {
        let fields = format!(r#"{{"preset": "{preset}"}}"#);
        assert!(problems(&fields, &[]).is_empty());
        let model = config(&fields).model().unwrap();
        let parameters: usize = model.parameters().iter().map(|one| one.shape.iter().product::<usize>()).sum();
        assert_eq!(parameters / 1_000_000, millions, "{preset}");
        assert_eq!((model.head_dim, model.num_key_value_heads, model.vocab_size), (128, 8, 151_936));
        assert_eq!((model.rope_theta, model.eos_token_ids.as_slice()), (1e6, &[151_645][..]));
    }
}

#[test]
fn what_is_given_wins_over_the_preset() {
    let fields = r#"{"preset": "qwen3-0.6b", "config": {"num_hidden_layers": 1, "vocab_size": 64, "hidden_size": 32,
        "intermediate_size": 32, "bos_token_id": 1, "eos_token_id": 2}}"#;
    let (_dir, model, _) = made(&config(fields), None);
    assert_eq!((model.num_hidden_layers, model.vocab_size, model.num_attention_heads), (1, 64, 16));
    assert!(model.tie_word_embeddings);
}

#[test]
fn a_tokenizer_gives_what_is_left_open() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tokenizer(&dir);
    let (made_dir, model, _) = made(&tiny(|config| config.config.vocab_size = None), Some(&folder));
    assert_eq!(model.vocab_size, 12);
    assert_eq!((model.eos_token_ids.as_slice(), model.pad_token_id, model.bos_token_id), (&[11][..], Some(10), None));
    for name in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        assert_eq!(fs::read(folder.join(name)).unwrap(), fs::read(made_dir.path().join("out").join(name)).unwrap());
    }
    let given = tiny(|config| {
        config.config.eos_token_id = Some(3);
        config.config.pad_token_id = Some(4);
    });
    let (_dir, model, _) = made(&given, Some(&folder));
    assert_eq!((model.vocab_size, model.eos_token_ids, model.pad_token_id), (300, vec![3], Some(4)));
}

#[test]
fn a_tokenizer_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let folder = tokenizer(&dir);
    let run = || {
        let config = tiny(|config| config.config.vocab_size = Some(11));
        init(&config, Some(&folder), dir.path(), 1).unwrap_err().chain().join(": ")
    };
    assert!(run().contains("config.vocab_size is 11, the tokenizer has ids up to 11"));
    fs::write(folder.join("tokenizer_config.json"), r#"{"eos_token": "<eos>"}"#).unwrap();
    assert!(run().contains("eos_token `<eos>` is no token of tokenizer.json"));
    fs::write(folder.join("tokenizer.json"), r#"{"model": {"type": "Unigram", "vocab": [["a", 0]]}}"#).unwrap();
    assert!(run().contains("tokenizer.json is not a byte-pair tokenizer"));
    fs::remove_file(folder.join("tokenizer.json")).unwrap();
    assert!(run().contains("cannot read") && run().contains("tokenizer.json"));
}

#[test]
fn every_missing_field_is_reported() {
    let fields = ["hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads"];
    let mut expected: Vec<String> = fields.iter().map(|field| format!("config.{field}: is missing")).collect();
    assert_eq!(problems("{}", &["tokenizer"]), expected);
    expected.insert(0, "config.vocab_size: is missing".to_owned());
    assert_eq!(problems("{}", &[]), expected);
}

#[test]
fn shapes_that_cannot_be_are_refused() {
    for (field, value, expected) in [
        ("head_dim", "15", "config.head_dim: must be even"),
        ("num_key_value_heads", "3", "config.num_key_value_heads: must divide num_attention_heads"),
        ("hidden_size", "0", "config.hidden_size: must be at least 1"),
        ("rope_theta", "-1.0", "config.rope_theta: must be above 0"),
        ("rms_norm_eps", "0.0", "config.rms_norm_eps: must be above 0"),
        ("initializer_range", "0.0", "config.initializer_range: must be above 0"),
        ("pad_token_id", "151936", "config.pad_token_id: 151936 is outside of the vocabulary"),
        ("num_hidden_layers", "4000000000", "config.num_hidden_layers: must be at most"),
    ] {
        let fields = format!(r#"{{"preset": "qwen3-0.6b", "config": {{"{field}": {value}}}}}"#);
        let found = problems(&fields, &[]);
        assert_eq!(found.len(), 1, "{field}: {found:?}");
        assert!(found[0].contains(expected), "{field}: {found:?}");
    }
    assert!(serde_json::from_str::<stage_init_model::Config>(r#"{"config": {"num_experts": 8}}"#).is_err());
    assert!(serde_json::from_str::<stage_init_model::Config>(r#"{"preset": "qwen3-2b"}"#).is_err());
}
