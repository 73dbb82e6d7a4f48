//! What tokenizing needs of a model folder. Ready ids need neither a tokenizer nor a template, only a bound.

use std::{collections::BTreeMap, fs, io, path::Path};

use pipe_text::{ChatTemplate, Tokenizer};

use crate::Error;

/// The tokenizer and template of the input `model`, as far as it has them.
pub(crate) struct Model {
    pub(crate) tokenizer: Option<Tokenizer>,
    pub(crate) template: Option<ChatTemplate>,
    /// How many ids the model knows: `vocab_size` of `config.json`, else the tokenizer's.
    pub(crate) vocab_size: Option<u64>,
}

impl Model {
    pub(crate) fn load(folder: &Path, kwargs: &BTreeMap<String, serde_json::Value>) -> Result<Self, Error> {
        let tokenizer = match Tokenizer::load(folder) {
            Ok(tokenizer) => Some(tokenizer),
            Err(pipe_text::Error::Missing { .. }) => None,
            Err(error) => return Err(error.into()),
        };
        let template = ChatTemplate::load(folder)?.map(|template| template.with_kwargs(kwargs));
        let of_tokenizer = tokenizer.as_ref().map(|tokenizer| tokenizer.vocab_size() as u64);
        Ok(Self { vocab_size: config_vocab_size(folder)?.or(of_tokenizer), tokenizer, template })
    }
}

fn config_vocab_size(folder: &Path) -> Result<Option<u64>, Error> {
    let path = folder.join("config.json");
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(Error::Io { path, source }),
    };
    let config: serde_json::Value =
        serde_json::from_str(&text).map_err(|source| pipe_text::Error::Json { path, source })?;
    Ok(config.get("vocab_size").and_then(serde_json::Value::as_u64))
}
