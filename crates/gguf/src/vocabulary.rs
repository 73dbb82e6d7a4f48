//! What a file says of its tokenizer: from `tokenizer.json` and the settings beside it.

use std::{fs, path::Path};

use pipe_hf::{ModelConfig, read_object};
use serde_json::{Map, Value as Json};

use crate::{Array, Error, Metadata, Value, pre_tokenizer};

/// What a token is, as `tokenizer.ggml.token_type` numbers it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenKind {
    /// A piece of text.
    Normal = 1,
    /// A special token: never the meaning of text.
    Control = 3,
    /// An added token that text may mean.
    UserDefined = 4,
    /// A row of the embedding that no token has.
    Unused = 5,
}

/// Names of special tokens in `tokenizer_config.json` (without `_token`), and in GGUF (without `_token_id`).
const SPECIAL: [(&str, &str); 6] =
    [("bos", "bos"), ("eos", "eos"), ("unk", "unknown"), ("sep", "seperator"), ("pad", "padding"), ("mask", "mask")];

/// The keys of the tokenizer in `folder`, and its chat template. Rows of the embedding without a token are filled up.
/// `turn_end` is the token that closes the assistant's turn, said where it is not the one that ends a text.
///
/// # Errors
/// If there is no tokenizer, it is not byte-level BPE with a pre-tokenizer that llama.cpp has a name for, or it has more
/// tokens than the model.
pub fn vocabulary_metadata(folder: &Path, model: &ModelConfig, turn_end: Option<u32>) -> Result<Metadata, Error> {
    let path = folder.join("tokenizer.json");
    let file = read_object(&path)?;
    let wrong = |problem: String| Error::Tokenizer { path: path.clone(), problem };
    let bpe = file.get("model").and_then(Json::as_object).ok_or_else(|| wrong("has no object `model`".to_owned()))?;
    let kind = bpe.get("type").and_then(Json::as_str).unwrap_or("BPE");
    if kind != "BPE" || bpe.get("byte_fallback") == Some(&Json::Bool(true)) {
        return Err(wrong(format!(
            "a tokenizer of the type {kind} cannot be written as GGUF, only byte-level BPE can"
        )));
    }
    let pre = pre_tokenizer::name(file.get("pre_tokenizer").unwrap_or(&Json::Null)).ok_or_else(|| {
        wrong(format!("its pre_tokenizer is none that llama.cpp is known to have; known are {}", pre_tokenizer::KNOWN))
    })?;
    let (tokens, kinds) = tokens(&file, bpe, model.vocab_size).map_err(wrong)?;
    let merges = merges(bpe).ok_or_else(|| wrong("model.merges is no list of pairs".to_owned()))?;
    let settings_path = folder.join("tokenizer_config.json");
    let settings = if settings_path.exists() { read_object(&settings_path)? } else { Map::new() };

    let mut metadata = Metadata::new();
    metadata.set("tokenizer.ggml.model", "gpt2");
    metadata.set("tokenizer.ggml.pre", pre);
    let ids = special_ids(&file, &settings, model);
    metadata.set("tokenizer.ggml.tokens", Value::Array(Array::String(tokens)));
    metadata.set(
        "tokenizer.ggml.token_type",
        Value::Array(Array::I32(kinds.into_iter().map(|kind| kind as i32).collect())),
    );
    metadata.set("tokenizer.ggml.merges", Value::Array(Array::String(merges)));
    for ((_, name), id) in SPECIAL.iter().zip(ids) {
        if let Some(id) = id {
            metadata.set(format!("tokenizer.ggml.{name}_token_id"), id);
        }
    }
    if let Some(turn_end) = turn_end.filter(|turn_end| ids[1] != Some(*turn_end)) {
        metadata.set("tokenizer.ggml.eot_token_id", turn_end);
    }
    for (name, added) in ["bos", "eos"].into_iter().zip(added_around(&file, &settings)) {
        metadata.set(format!("tokenizer.ggml.add_{name}_token"), added);
    }
    if let Some(template) = chat_template(folder, &settings)? {
        metadata.set("tokenizer.chat_template", template);
    }
    Ok(metadata)
}

/// Texts and kinds by id.
fn tokens(
    file: &Map<String, Json>,
    bpe: &Map<String, Json>,
    vocab_size: usize,
) -> Result<(Vec<String>, Vec<TokenKind>), String> {
    let mut tokens: Vec<String> = (0..vocab_size).map(|id| format!("[PAD{id}]")).collect();
    let mut kinds = vec![TokenKind::Unused; vocab_size];
    let mut put = |id: Option<u64>, text: &str, kind: TokenKind| {
        let id = id.and_then(|id| usize::try_from(id).ok()).filter(|id| *id < vocab_size);
        let id = id.ok_or_else(|| format!("the id of `{text}` is not among the {vocab_size} that the model has"))?;
        text.clone_into(&mut tokens[id]);
        kinds[id] = kind;
        Ok::<(), String>(())
    };
    for (text, id) in bpe.get("vocab").and_then(Json::as_object).ok_or("model.vocab is no object")? {
        put(id.as_u64(), text, TokenKind::Normal)?;
    }
    for token in file.get("added_tokens").and_then(Json::as_array).into_iter().flatten() {
        let text = token.get("content").and_then(Json::as_str).ok_or("an added token has no content")?;
        let special = token.get("special") == Some(&Json::Bool(true));
        let kind = if special { TokenKind::Control } else { TokenKind::UserDefined };
        put(token.get("id").and_then(Json::as_u64), text, kind)?;
    }
    Ok((tokens, kinds))
}

/// A merge is written as its two parts with a space between; a space within a part becomes its byte-level letter.
fn merges(bpe: &Map<String, Json>) -> Option<Vec<String>> {
    let merge = |merge: &Json| match merge {
        Json::String(text) => Some(text.clone()),
        Json::Array(parts) => match parts.as_slice() {
            [Json::String(left), Json::String(right)] => {
                Some(format!("{} {}", left.replace(' ', "\u{120}"), right.replace(' ', "\u{120}")))
            }
            _ => None,
        },
        _ => None,
    };
    bpe.get("merges")?.as_array()?.iter().map(merge).collect()
}

/// The ids of [`SPECIAL`]: the tokens that the settings name, else the ids of `config.json`.
fn special_ids(file: &Map<String, Json>, settings: &Map<String, Json>, model: &ModelConfig) -> [Option<u32>; 6] {
    let added = file.get("added_tokens").and_then(Json::as_array).map(Vec::as_slice).unwrap_or_default();
    let id_of = |text: &str| {
        let token = added.iter().find(|token| token.get("content").and_then(Json::as_str) == Some(text))?;
        token.get("id")?.as_u64().and_then(|id| u32::try_from(id).ok())
    };
    SPECIAL.map(|(name, _)| {
        let token = settings.get(&format!("{name}_token"));
        let text = token.and_then(|token| token.as_str().or_else(|| token.get("content")?.as_str()));
        let of_config = || {
            let id = model.raw.get(&format!("{name}_token_id"))?;
            let first = id.as_array().and_then(|ids| ids.first()).unwrap_or(id);
            u32::try_from(first.as_u64()?).ok().filter(|id| (*id as usize) < model.vocab_size)
        };
        text.and_then(id_of).or_else(of_config)
    })
}

/// Whether the tokenizer puts a token before and behind each text. Always said: llama.cpp's own guess depends on the
/// pre-tokenizer.
fn added_around(file: &Map<String, Json>, settings: &Map<String, Json>) -> [bool; 2] {
    let post = file.get("post_processor").unwrap_or(&Json::Null);
    let steps = match post.get("processors") {
        Some(Json::Array(steps)) => steps.as_slice(),
        _ => std::slice::from_ref(post),
    };
    let single = steps.iter().find(|step| step.get("type").and_then(Json::as_str) == Some("TemplateProcessing"));
    let single = single.and_then(|step| step.get("single")?.as_array()).map(Vec::as_slice).unwrap_or_default();
    let is_special =
        |step: Option<&Json>| single.len() > 1 && step.is_some_and(|step| step.get("SpecialToken").is_some());
    let said = |name: &str| settings.get(name).and_then(Json::as_bool);
    [
        said("add_bos_token").unwrap_or_else(|| is_special(single.first())),
        said("add_eos_token").unwrap_or_else(|| is_special(single.last())),
    ]
}

fn chat_template(folder: &Path, settings: &Map<String, Json>) -> Result<Option<String>, Error> {
    let path = folder.join("chat_template.jinja");
    if path.exists() {
        return fs::read_to_string(&path).map(Some).map_err(Error::read(&path));
    }
    Ok(match settings.get("chat_template") {
        Some(Json::String(template)) => Some(template.clone()),
        Some(Json::Array(templates)) => templates
            .iter()
            .find(|template| template.get("name").and_then(Json::as_str) == Some("default"))
            .and_then(|template| template.get("template")?.as_str())
            .map(str::to_owned),
        _ => None,
    })
}
