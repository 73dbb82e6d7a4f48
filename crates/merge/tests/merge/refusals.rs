//! What does not fit together is named.

use pipe_merge::{Error, MergeInto, Merged};
use serde_json::json;

use crate::model::{Tensors, add_pair, pairs, write_adapter, write_model};

fn refused(quantised: bool, tensors: &Tensors, into: Option<MergeInto>) -> Error {
    let folder = tempfile::tempdir().unwrap();
    let (model, adapter) = (folder.path().join("model"), folder.path().join("adapter"));
    write_model(&model, false, quantised);
    write_adapter(&adapter, tensors, &json!({}));
    let merged = match Merged::open(&model, None, Some(&adapter), into) {
        Ok(merged) => merged,
        Err(error) => return error,
    };
    let names: Vec<String> = merged.parameters().iter().map(|parameter| parameter.name.clone()).collect();
    names.iter().find_map(|name| merged.tensor(name).err()).unwrap()
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let mut random = fastrand::Rng::with_seed(1);
    let mut tensors = pairs();
    add_pair(&mut tensors, "model.layers.2.self_attn.q_proj", 32, 40, &mut random);
    assert!(
        matches!(refused(false, &tensors, None), Error::UnknownModule { module, .. } if module == "model.layers.2.self_attn.q_proj")
    );
    let mut tensors = pairs();
    add_pair(&mut tensors, "model.layers.0.mlp.up_proj", 72, 48, &mut random);
    assert!(
        matches!(refused(false, &tensors, None), Error::Shape { found, expected, .. } if found == [3, 48] && expected == [3, 40])
    );
    let mut tensors = pairs();
    tensors.insert("model.embed_tokens".to_owned(), (vec![30, 40], vec![0.0; 1200]));
    assert!(matches!(refused(false, &tensors, None), Error::Shape { found, .. } if found == [30, 40]));
}

#[test]
fn an_adapter_that_is_no_whole_lora_is_refused() {
    let mut tensors = pairs();
    tensors.remove("model.layers.0.self_attn.q_proj.lora_B");
    assert!(matches!(refused(false, &tensors, None), Error::HalfPair { .. }));
    let mut tensors = pairs();
    tensors.insert("model.embed_tokens.lora_embedding_A".to_owned(), (vec![3, 24], vec![0.0; 72]));
    assert!(matches!(refused(false, &tensors, None), Error::UnknownTensor { .. }));
    let mut tensors = pairs();
    tensors.insert("model.layers.0.self_attn.q_proj".to_owned(), (vec![32, 40], vec![0.0; 1280]));
    assert!(matches!(refused(false, &tensors, None), Error::Twice { .. }));
}

#[test]
fn weights_that_are_not_given_cannot_be_merged_into() {
    assert!(matches!(refused(true, &pairs(), Some(MergeInto::Original)), Error::NoOriginal { .. }));
    assert!(matches!(refused(false, &pairs(), Some(MergeInto::Dequantized)), Error::NotQuantised { .. }));
    let folder = tempfile::tempdir().unwrap();
    let (model, other) = (folder.path().join("model"), folder.path().join("other"));
    write_model(&model, false, true);
    write_model(&other, true, false);
    let error = Merged::open(&model, Some(&other), None, Some(MergeInto::Original)).unwrap_err();
    assert!(matches!(error, Error::OtherModel { field: "tie_word_embeddings", .. }), "{error}");
    let error = Merged::open(&model, Some(&model), None, Some(MergeInto::Original)).unwrap_err();
    assert!(matches!(error, Error::QuantisedOriginal { .. }), "{error}");
}
