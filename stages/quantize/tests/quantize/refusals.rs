//! What cannot be quantised is said to be so, and not passed over.

use std::{fs, path::Path};

use pipe_hf::{Checkpoint, Dtype, TensorSpec, write_safetensors};

use crate::{config, convert_and_shard, edit_config, fixture, quantize};

fn refused(model: &Path, dir: &Path) -> String {
    quantize(model, dir, &config("{}"), 2).unwrap_err().chain().join(": ")
}

/// The weights of a model in one file, after `edit`.
fn rewrite(model: &Path, edit: impl FnOnce(&mut Vec<(TensorSpec, Vec<u8>)>)) {
    let checkpoint = Checkpoint::open(model).unwrap();
    let mut tensors: Vec<_> = checkpoint
        .names()
        .map(|name| {
            let info = checkpoint.info(name).unwrap();
            (TensorSpec::new(name, info.dtype, info.shape.clone()), checkpoint.read(name).unwrap())
        })
        .collect();
    edit(&mut tensors);
    let borrowed: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    write_safetensors(&model.join("model.safetensors"), &borrowed).unwrap();
}

fn copy() -> (tempfile::TempDir, std::path::PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let model = dir.path().join("model");
    convert_and_shard(&fixture("model_tied"), &model, Dtype::F32);
    (dir, model)
}

#[test]
fn a_quantised_model() {
    let dir = tempfile::tempdir().unwrap();
    assert!(refused(&fixture("bnb4_tied"), dir.path()).contains("is quantized already"));
}

#[test]
fn values_that_are_not_finite() {
    let (dir, model) = copy();
    rewrite(&model, |tensors| {
        let (_, bytes) =
            tensors.iter_mut().find(|(spec, _)| spec.name.ends_with("layers.1.mlp.up_proj.weight")).unwrap();
        bytes[4 * 1000..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    });
    let message = refused(&model, dir.path());
    assert!(
        message.contains("`model.layers.1.mlp.up_proj.weight` holds NaN or infinity among its elements 960 to 1023"),
        "{message}"
    );
}

#[test]
fn a_tensor_too_many_or_too_few() {
    let (dir, model) = copy();
    rewrite(&model, |tensors| {
        let mut extra = tensors[0].clone();
        extra.0.name = "visual.proj.weight".to_owned();
        tensors.push(extra);
    });
    let message = refused(&model, dir.path());
    assert!(message.contains("`visual.proj.weight` is no part of a qwen3 model"), "{message}");
    rewrite(&model, |tensors| tensors.retain(|(spec, _)| !spec.name.ends_with("layers.0.self_attn.q_norm.weight")));
    let message = refused(&model, dir.path());
    assert!(message.contains("has no tensor `model.layers.0.self_attn.q_norm.weight`"), "{message}");
}

#[test]
fn types_without_a_rule() {
    let (dir, model) = copy();
    rewrite(&model, |tensors| {
        let (spec, _) = tensors.iter_mut().find(|(spec, _)| spec.name.ends_with("up_proj.weight")).unwrap();
        spec.dtype = Dtype::I32;
    });
    let message = refused(&model, dir.path());
    assert!(message.contains("holds I32 elements; bf16, fp16 and fp32 can be quantized"), "{message}");
}

#[test]
fn a_head_that_contradicts_the_configuration() {
    let (dir, model) = copy();
    rewrite(&model, |tensors| {
        let mut head = tensors.iter().find(|(spec, _)| spec.name == "model.embed_tokens.weight").unwrap().clone();
        head.0.name = "lm_head.weight".to_owned();
        head.1[0] ^= 1;
        tensors.push(head);
    });
    let message = refused(&model, dir.path());
    assert!(message.contains("lm_head.weight differs from model.embed_tokens.weight"), "{message}");
}

#[test]
fn configurations_of_other_models() {
    let (dir, model) = copy();
    edit_config(&model, |object| drop(object.insert("model_type".to_owned(), "mamba".into())));
    assert!(refused(&model, dir.path()).contains("model_type: `mamba` is not supported"));
    fs::remove_file(model.join("config.json")).unwrap();
    assert!(refused(&model, dir.path()).contains("config.json"));
}
