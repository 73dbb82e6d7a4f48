//! `generation_config.json`: what ends an answer.

use std::path::Path;

use pipe_hf::{ModelConfig, read_object, write_object};
use serde_json::{Map, json};

use crate::{Error, dialogue::Dialogue};

const FILE: &str = "generation_config.json";

/// Writes the settings of `model` into `folder`, with every token that ends an answer: first the one that closes the
/// assistant's turn in the chat template, which is what was trained, then those that the model had.
pub(crate) fn write(model: &Path, config: &ModelConfig, dialogue: &Dialogue, folder: &Path) -> Result<(), Error> {
    let path = model.join(FILE);
    let mut object = if path.exists() { read_object(&path)? } else { Map::new() };
    // Where it is true, transformers takes the ids of config.json instead.
    object.shift_remove("_from_model_config");
    let ids = end_ids(config, dialogue);
    match ids.as_slice() {
        [] => {}
        [one] => drop(object.insert("eos_token_id".to_owned(), json!(one))),
        more => drop(object.insert("eos_token_id".to_owned(), json!(more))),
    }
    for (name, id) in [("bos_token_id", config.bos_token_id), ("pad_token_id", config.pad_token_id)] {
        if let Some(id) = id {
            object.entry(name).or_insert(json!(id));
        }
    }
    Ok(write_object(&folder.join(FILE), &object)?)
}

/// Every token that ends an answer, each once.
pub(crate) fn end_ids(config: &ModelConfig, dialogue: &Dialogue) -> Vec<u32> {
    let known = dialogue.tokenizer.as_ref().map_or(config.eos_token_ids.as_slice(), |tokenizer| tokenizer.end_ids());
    let mut ids: Vec<u32> = dialogue.turn_end().into_iter().collect();
    for id in known {
        if !ids.contains(id) {
            ids.push(*id);
        }
    }
    ids
}
