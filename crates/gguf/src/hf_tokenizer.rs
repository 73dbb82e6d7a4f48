//! A tokenizer in the files of a Hugging Face folder, from the metadata of a GGUF file.

use std::{fs, path::Path};

use pipe_hf::write_object;
use serde_json::{Map, Value as Json, json};

use crate::{Array, Error, GgufReader, TokenKind, Value, pre_tokenizer};

/// The files of a tokenizer, ready to be written.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizerFiles {
    tokenizer: Map<String, Json>,
    settings: Map<String, Json>,
    generation: Map<String, Json>,
    chat_template: Option<String>,
}

impl TokenizerFiles {
    /// Reads the tokenizer of a file. Special and user-defined tokens stand among the added tokens, and in the
    /// vocabulary too: the library `tokenizers` numbers an added token by itself unless the vocabulary has it.
    ///
    /// # Errors
    /// If there is none, or it is no byte-level BPE with a known pre-tokenizer.
    pub fn from_gguf(file: &GgufReader) -> Result<Self, Error> {
        let metadata = file.metadata();
        let wrong =
            |key: &str, problem: String| Error::Key { path: file.path().to_owned(), key: key.to_owned(), problem };
        let key = |name: &str| metadata.get(&format!("tokenizer.ggml.{name}"));
        let text = |name: &str| key(name).and_then(Value::as_str).unwrap_or_default();
        if text("model") != "gpt2" {
            let problem = format!("`{}` is not supported, only gpt2 (byte-level BPE) is", text("model"));
            return Err(wrong("tokenizer.ggml.model", problem));
        }
        let (pre, normalizer) = pre_tokenizer::from_name(text("pre")).ok_or_else(|| {
            let problem = format!("`{}` is not known; known are {}", text("pre"), pre_tokenizer::KNOWN);
            wrong("tokenizer.ggml.pre", problem)
        })?;
        let strings = |name: &str| {
            let list = key(name).and_then(Value::as_strings);
            list.ok_or_else(|| wrong(&format!("tokenizer.ggml.{name}"), "is missing or no list of texts".to_owned()))
        };
        let (tokens, merges) = (strings("tokens")?, strings("merges")?);
        let kinds = match key("token_type") {
            Some(Value::Array(Array::I32(kinds))) if kinds.len() == tokens.len() => kinds.clone(),
            None => vec![TokenKind::Normal as i32; tokens.len()],
            Some(_) => {
                return Err(wrong("tokenizer.ggml.token_type", "is no list of a kind for each token".to_owned()));
            }
        };
        let id = |name: &str| {
            let id = key(&format!("{name}_token_id")).and_then(Value::as_u64)?;
            usize::try_from(id).ok().filter(|id| *id < tokens.len())
        };
        let adds = |name: &str| key(name).and_then(Value::as_bool);

        let (mut vocab, mut added) = (Map::new(), Vec::new());
        for (id, (token, kind)) in tokens.iter().zip(kinds).enumerate() {
            if kind == TokenKind::Unused as i32 {
                continue;
            }
            if vocab.insert(token.clone(), json!(id)).is_some() {
                return Err(wrong("tokenizer.ggml.tokens", format!("`{token}` stands twice")));
            }
            if kind == TokenKind::Control as i32 || kind == TokenKind::UserDefined as i32 {
                added.push(json!({
                    "id": id, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                    "normalized": false, "special": kind == TokenKind::Control as i32,
                }));
            }
        }
        let pairs: Option<Vec<Json>> =
            merges.iter().map(|merge| merge.split_once(' ').map(|(left, right)| json!([left, right]))).collect();
        let pairs = pairs.ok_or_else(|| wrong("tokenizer.ggml.merges", "has a merge that is no pair".to_owned()))?;
        let tokenizer = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added,
            "normalizer": normalizer,
            "pre_tokenizer": pre,
            "post_processor": post_processor(id("bos").filter(|_| adds("add_bos_token") == Some(true)), tokens),
            "decoder": { "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true },
            "model": {
                "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
                "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
                "vocab": vocab, "merges": pairs,
            },
        });
        let token = |name: &str| id(name).map(|id| tokens[id].as_str());
        let context = file.metadata().iter().find(|(key, _)| key.ends_with(".context_length"));
        let settings = json!({
            "add_bos_token": adds("add_bos_token").unwrap_or(false),
            "add_prefix_space": false,
            "bos_token": token("bos"),
            "clean_up_tokenization_spaces": false,
            "eos_token": token("eos"),
            "model_max_length": context.and_then(|(_, length)| length.as_u64()),
            "pad_token": token("padding"),
            "tokenizer_class": "PreTrainedTokenizerFast",
            "unk_token": token("unknown"),
        });
        let mut ends: Vec<usize> = [id("eos"), id("eot")].into_iter().flatten().collect();
        ends.dedup();
        let generation = json!({
            "bos_token_id": id("bos"),
            "eos_token_id": match ends.as_slice() { [] => Json::Null, [one] => json!(one), more => json!(more) },
            "pad_token_id": id("padding"),
        });
        let object = |value: Json| value.as_object().cloned().unwrap_or_default();
        let chat_template = metadata.get("tokenizer.chat_template").and_then(Value::as_str).map(str::to_owned);
        Ok(Self {
            tokenizer: object(tokenizer),
            settings: object(settings),
            generation: object(generation),
            chat_template,
        })
    }

    /// Writes `tokenizer.json`, `tokenizer_config.json`, `generation_config.json` and, if there is one,
    /// `chat_template.jinja`.
    ///
    /// # Errors
    /// If a file cannot be written.
    pub fn write(&self, folder: &Path) -> Result<(), Error> {
        write_object(&folder.join("tokenizer.json"), &self.tokenizer)?;
        write_object(&folder.join("tokenizer_config.json"), &self.settings)?;
        write_object(&folder.join("generation_config.json"), &self.generation)?;
        if let Some(template) = &self.chat_template {
            let path = folder.join("chat_template.jinja");
            fs::write(&path, template).map_err(Error::write(&path))?;
        }
        Ok(())
    }
}

/// Bytes, and a token before each text where the tokenizer adds one.
fn post_processor(bos: Option<usize>, tokens: &[String]) -> Json {
    let bytes = json!({ "type": "ByteLevel", "add_prefix_space": true, "trim_offsets": false, "use_regex": true });
    let Some(id) = bos else { return bytes };
    let bos = &tokens[id];
    let special = json!({ "SpecialToken": { "id": bos, "type_id": 0 } });
    let sequence = |name: &str, type_id: u32| json!({ "Sequence": { "id": name, "type_id": type_id } });
    let mut special_tokens = Map::new();
    special_tokens.insert(bos.clone(), json!({ "id": bos, "ids": [id], "tokens": [bos] }));
    let template = json!({
        "type": "TemplateProcessing",
        "single": [special, sequence("A", 0)],
        "pair": [special, sequence("A", 0), sequence("B", 1)],
        "special_tokens": special_tokens,
    });
    json!({ "type": "Sequence", "processors": [bytes, template] })
}
