//! The drawn weights.

use std::fs;

use half::bf16;
use pipe_hf::Dtype;
use stage_init_model::{Normal, WeightType};

use crate::{init, made, tiny};

#[test]
fn norms_are_one_and_the_rest_is_normal() {
    let (_dir, model, checkpoint) = made(&tiny(|config| config.dtype = WeightType::Float32), None);
    assert_eq!(checkpoint.names().count(), model.parameters().len());
    for name in checkpoint.names() {
        let values = checkpoint.read_f32(name).unwrap();
        if name.ends_with("norm.weight") {
            assert!(values.iter().all(|value| *value == 1.0), "{name}");
            continue;
        }
        let stream = Normal::new(42, name);
        let expected: Vec<f32> = (0..values.len()).map(|i| (stream.get(i as u64) * 0.02) as f32).collect();
        assert_eq!(values, expected, "{name}");
        let variance = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / values.len() as f64;
        assert!((variance.sqrt() / 0.02 - 1.0).abs() < 0.1, "{name} {variance}");
    }
}

#[test]
fn the_type_only_rounds() {
    let (_a, _, wide) = made(&tiny(|config| config.dtype = WeightType::Float32), None);
    let (_b, _, narrow) = made(&tiny(|_| {}), None);
    let (_c, _, half) = made(&tiny(|config| config.dtype = WeightType::Float16), None);
    for name in wide.names() {
        let values = wide.read_f32(name).unwrap();
        assert_eq!(narrow.info(name).unwrap().dtype, Dtype::BF16);
        assert_eq!(half.info(name).unwrap().dtype, Dtype::F16);
        let rounded: Vec<f32> = values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
        assert_eq!(narrow.read_f32(name).unwrap(), rounded);
    }
}

#[test]
fn threads_change_nothing_and_seeds_do() {
    let bytes = |seed: u64, cpus: usize| {
        let dir = tempfile::tempdir().unwrap();
        // More than one piece a tensor.
        let config = tiny(|config| {
            config.seed = seed;
            config.config.vocab_size = Some(20_000);
        });
        let folder = init(&config, None, dir.path(), cpus).unwrap();
        (fs::read(folder.join("model.safetensors")).unwrap(), fs::read(folder.join("config.json")).unwrap())
    };
    let first = bytes(1, 1);
    assert!(first == bytes(1, 5));
    assert!(first != bytes(2, 1));
}

/// The bytes of a model never change: keys of stored models stay true.
#[test]
fn a_model_has_the_digest_that_it_always_had() {
    let dir = tempfile::tempdir().unwrap();
    let folder = init(&tiny(|_| {}), None, dir.path(), 2).unwrap();
    let digest = |name: &str| pipe_stage::Digest::of(&fs::read(folder.join(name)).unwrap()).to_string();
    assert_eq!(digest("model.safetensors"), "349f054970661516ea23ec18a0a8eae7864bfa72d70b0759568f2068d0d2801a");
    assert_eq!(digest("config.json"), "ef965e2ca6a493248fab32654f05b0b9d69bf3f53a78525ed02795508bea0cfa");
}

#[test]
fn the_row_of_the_padding_token_is_zero() {
    let config = tiny(|config| config.config.pad_token_id = Some(7));
    let (_dir, model, checkpoint) = made(&config, None);
    let (_other_dir, _, without) = made(&tiny(|_| {}), None);
    let embedding = "model.embed_tokens.weight";
    let width = model.hidden_size;
    let (rows, rows_without) = (checkpoint.read_f32(embedding).unwrap(), without.read_f32(embedding).unwrap());
    for (i, (row, other)) in rows.chunks(width).zip(rows_without.chunks(width)).enumerate() {
        if i == 7 {
            assert!(row.iter().all(|value| *value == 0.0));
        } else {
            assert_eq!(row, other);
        }
    }
    let head = "lm_head.weight";
    assert_eq!(checkpoint.read(head).unwrap(), without.read(head).unwrap());
}
