//! Adapters that PEFT saved, and ours.

use std::path::Path;

use pipe_hf::{AdapterConfig, Checkpoint};
use pipe_nn::{
    LoraConfig, Parameter,
    adapter::{SavedAdapter, save_adapter},
};
use tch::Tensor;

/// The parameters of the model that the fixture was trained on: tied, everything trained.
fn parameters() -> Vec<Parameter> {
    let file = Checkpoint::open_file(&super::fixture("peft_tied/adapter_model.safetensors")).unwrap();
    let names = file.names().filter(|name| !name.contains("lm_head"));
    let parameter = |name: &str| {
        let shape: Vec<i64> = file.info(name).unwrap().shape.iter().map(|side| *side as i64).collect();
        let value = Tensor::zeros(&shape[..], (tch::Kind::Float, tch::Device::Cpu));
        Parameter::matrix(name.to_owned(), value).unwrap()
    };
    names.map(parameter).collect()
}

fn lora() -> LoraConfig {
    SavedAdapter::open(&super::fixture("peft_tied")).unwrap().lora().clone()
}

#[test]
fn an_adapter_of_peft_comes_back_byte_for_byte() {
    let folder = tempfile::tempdir().unwrap();
    let adapter = SavedAdapter::open(&super::fixture("peft_tied")).unwrap();
    assert_eq!(adapter.lora().target_modules, ["down_proj", "gate_proj", "q_proj", "v_proj"]);
    assert_eq!(adapter.lora().modules_to_save, ["embed_tokens", "lm_head"], "PEFT's own list has lost the head");
    let mut parameters = parameters();
    adapter.load_into(&mut parameters, true).unwrap();
    save_adapter(folder.path(), &parameters, adapter.lora(), true, None).unwrap();

    let read = |folder: &Path| std::fs::read(folder.join("adapter_model.safetensors")).unwrap();
    assert!(read(folder.path()) == read(&super::fixture("peft_tied")), "the files differ");
    let ours = AdapterConfig::open(folder.path()).unwrap();
    assert!(ours.ensure_weight_tying);
    assert_eq!(ours.modules_to_save, ["embed_tokens", "lm_head"]);
    assert_eq!((ours.r, ours.lora_alpha, ours.use_rslora), (8, 16.0, true));
    assert_eq!(ours.base_model, None);
}

#[test]
fn an_untied_model_saves_its_parameters_once() {
    let folder = tempfile::tempdir().unwrap();
    save_adapter(folder.path(), &parameters(), &lora(), false, None).unwrap();
    let file = Checkpoint::open_file(&folder.path().join("adapter_model.safetensors")).unwrap();
    assert!(!file.contains("base_model.model.lm_head.weight"));
    assert!(!AdapterConfig::open(folder.path()).unwrap().ensure_weight_tying);
}

#[test]
fn settings_that_disagree_are_named_with_both_values() {
    let adapter = SavedAdapter::open(&super::fixture("peft_tied")).unwrap();
    let check = |change: fn(&mut LoraConfig)| {
        let mut stage = lora();
        change(&mut stage);
        adapter.check(&stage).map_err(|error| error.to_string())
    };
    assert_eq!(check(|_| ()), Ok(()));
    assert_eq!(check(|stage| stage.lora_dropout = 0.5), Ok(()), "dropout is a matter of training only");
    assert_eq!(check(|stage| stage.target_modules.reverse()), Ok(()), "the order says nothing");
    let message = check(|stage| stage.r = 4).unwrap_err();
    assert!(message.contains("has r 8") && message.contains("`lora.r: 4`"), "{message}");
    let message = check(|stage| stage.lora_alpha = 32.0).unwrap_err();
    assert!(message.contains("has lora_alpha 16") && message.contains("`lora.lora_alpha: 32`"), "{message}");
    assert!(check(|stage| stage.use_rslora = false).unwrap_err().contains("use_rslora true"));
    assert!(check(|stage| stage.target_modules.truncate(2)).unwrap_err().contains("target_modules"));
    assert!(check(|stage| stage.modules_to_save.clear()).unwrap_err().contains("modules_to_save"));
}

#[test]
fn an_adapter_of_another_model_is_refused() {
    let adapter = SavedAdapter::open(&super::fixture("peft_tied")).unwrap();
    let load = |change: fn(&mut Vec<Parameter>), tied| {
        let mut parameters = parameters();
        change(&mut parameters);
        adapter.load_into(&mut parameters, tied).map_err(|error| error.to_string())
    };
    let cut = |parameters: &mut Vec<Parameter>| {
        let value = parameters[0].value().unwrap().narrow(0, 0, 5);
        parameters[0] = Parameter::matrix(parameters[0].name.clone(), value).unwrap();
    };
    let shape = load(cut, true).unwrap_err();
    assert!(shape.contains("of the shape [512, 64], this base needs [5, 64]"), "{shape}");
    let missing = load(|parameters| parameters[1].name = parameters[1].name.replace("layers.0", "layers.9"), true);
    assert!(missing.unwrap_err().contains("which this base has no place for"));
    let extra = |parameters: &mut Vec<Parameter>| {
        let value = parameters[1].value().unwrap().copy();
        let name = parameters[1].name.replace("layers.0", "layers.9");
        parameters.push(Parameter::matrix(name, value).unwrap());
    };
    assert!(load(extra, true).unwrap_err().contains("has no tensor `base_model.model.model.layers.9."));
    assert!(
        load(|_| (), false).unwrap_err().contains("`base_model.model.lm_head.weight`"),
        "an untied base has a head"
    );
}

#[test]
fn an_embedding_and_a_head_that_drifted_apart_do_not_fit_a_tied_base() {
    let folder = tempfile::tempdir().unwrap();
    let mut parameters = parameters();
    let value = parameters[0].value().unwrap().ones_like();
    let name = "base_model.model.lm_head.weight".to_owned();
    parameters.push(Parameter::matrix(name, value).unwrap());
    save_adapter(folder.path(), &parameters, &lora(), false, None).unwrap();
    let adapter = SavedAdapter::open(folder.path()).unwrap();
    parameters.pop();
    let message = adapter.load_into(&mut parameters, true).unwrap_err().to_string();
    assert!(message.contains("this base ties the two"), "{message}");
}
