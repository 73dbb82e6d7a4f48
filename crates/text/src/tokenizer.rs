//! Text to ids and back.

use std::{collections::HashMap, path::Path};

use serde_json::Value;
use tokenizers::pipeline::{EncodeOptions, Override, PipelineToken, PipelineTokenizer};

use crate::{
    Error, SpecialInText,
    folder::{self, TokenizerConfig},
    missing_bytes::MissingBytes,
    special::SpecialTokens,
};

const FILE: &str = "tokenizer.json";

/// The tokenizer of a model folder. Cheap to share between threads.
pub struct Tokenizer {
    inner: PipelineTokenizer,
    missing_bytes: Option<MissingBytes>,
    /// Ids of the tokens that stand beside the model's vocabulary: special tokens, `<think>` and their like.
    added: HashMap<String, u32>,
    special: SpecialTokens,
    /// Whether text is encoded the same beside a special token as alone.
    stands_apart: bool,
    vocab_size: usize,
    eos: Option<u32>,
    end_ids: Vec<u32>,
}

impl Tokenizer {
    /// Loads `tokenizer.json`, and what `tokenizer_config.json`, `generation_config.json` and `config.json` say of the
    /// tokens that end a text.
    ///
    /// # Errors
    /// If the folder has no `tokenizer.json`, or a file is broken or describes an unknown kind of tokenizer.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE);
        let mut json =
            folder::json(folder, FILE)?.ok_or_else(|| Error::Missing { folder: folder.to_owned(), file: FILE })?;
        let vocab_size = vocab_size(&json, added_tokens(&json).ids.into_values());
        let missing_bytes = MissingBytes::fill(&mut json, vocab_size);
        tokenizers::canonicalize_value(&mut json)
            .map_err(|source| Error::Tokenizer { path: path.clone(), source: source.into() })?;
        let added = added_tokens(&json);
        let inner = tokenizers::from_json(&json.to_string()).map_err(|source| Error::Tokenizer { path, source })?;
        let Added { ids: added, special, plain } = added;
        let special = SpecialTokens::new(special);
        let mut tokenizer = Self {
            inner,
            missing_bytes,
            added,
            special,
            stands_apart: plain,
            vocab_size,
            eos: None,
            end_ids: Vec::new(),
        };
        tokenizer.find_end_tokens(folder)?;
        if let (true, Some(token)) = (plain, tokenizer.special.contents().first()) {
            let beside = tokenizer.encode(&format!("{token}a"))?;
            tokenizer.stands_apart = beside.get(1..) == Some(tokenizer.encode("a")?.as_slice());
        }
        Ok(tokenizer)
    }

    /// The ids of a text. Special tokens that stand in it are taken as such; none is added around it.
    ///
    /// # Errors
    /// If the text is longer than 4 GiB.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.encode_text(text, SpecialInText::Parse)
    }

    /// The ids of a text in which special tokens are what `special` says; none is added around it. Added tokens that are
    /// not special, such as `<think>`, are always tokens.
    ///
    /// # Errors
    /// If the text is longer than 4 GiB.
    pub fn encode_text(&self, text: &str, special: SpecialInText) -> Result<Vec<u32>, Error> {
        let options = EncodeOptions {
            add_special_tokens: false,
            encode_special_tokens: special == SpecialInText::Text,
            padding: Override::Off,
            truncation: Override::Off,
        };
        let mut tokens = Vec::with_capacity(text.len() / 3);
        self.inner
            .encode_into(text, &options, &mut tokens)
            .map_err(|source| Error::Code { action: "encode the text", source })?;
        let ids: Vec<u32> = tokens.into_iter().map(PipelineToken::id).collect();
        Ok(match self.missing_bytes {
            Some(missing) => missing.settle(ids),
            None => ids,
        })
    }

    /// The text of some ids. Unknown ids give nothing; bytes that are no UTF-8 give replacement characters.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses the tokens.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String, Error> {
        self.inner
            .decode(ids, skip_special_tokens)
            .map_err(|source| Error::Code { action: "decode the tokens", source })
    }

    /// The id of an added token, such as `<|im_end|>`.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.added.get(token).copied()
    }

    /// One more than the highest id. A model's embedding often has more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token that ends a text: `eos_token` of `tokenizer_config.json`, else the first of [`Tokenizer::end_ids`].
    pub fn eos(&self) -> Option<u32> {
        self.eos
    }

    /// Every token that ends what a model generates: `eos_token_id` of `generation_config.json`, else of
    /// `config.json`, and [`Tokenizer::eos`].
    pub fn end_ids(&self) -> &[u32] {
        &self.end_ids
    }

    /// How many special tokens stand in a text.
    pub fn count_special(&self, text: &str) -> usize {
        self.special.count(text)
    }

    pub(crate) fn special_tokens(&self) -> &SpecialTokens {
        &self.special
    }

    /// Whether the text beside a special token is encoded as it would be alone.
    pub(crate) fn stands_apart(&self) -> bool {
        self.stands_apart
    }

    fn find_end_tokens(&mut self, folder: &Path) -> Result<(), Error> {
        let config = TokenizerConfig::load(folder)?;
        self.eos = config.token("eos_token").and_then(|token| self.id(token));
        for file in ["generation_config.json", "config.json"] {
            if self.end_ids.is_empty() {
                let config = folder::json(folder, file)?.unwrap_or_default();
                self.end_ids = ids(config.get("eos_token_id"));
            }
        }
        match self.eos {
            None => self.eos = self.end_ids.first().copied(),
            Some(eos) if !self.end_ids.contains(&eos) => self.end_ids.push(eos),
            Some(_) => {}
        }
        Ok(())
    }
}

/// A field that holds an id or a list of ids.
fn ids(value: Option<&Value>) -> Vec<u32> {
    let id = |value: &Value| value.as_u64().and_then(|id| u32::try_from(id).ok());
    match value {
        Some(Value::Array(values)) => values.iter().filter_map(id).collect(),
        Some(value) => id(value).into_iter().collect(),
        None => Vec::new(),
    }
}

/// What `added_tokens` says.
struct Added {
    /// Ids of all added tokens.
    ids: HashMap<String, u32>,
    /// The texts of those that are special.
    special: Vec<String>,
    /// Whether no special token takes the space beside it, or asks for it.
    plain: bool,
}

fn added_tokens(json: &Value) -> Added {
    let mut added = Added { ids: HashMap::new(), special: Vec::new(), plain: true };
    for token in json.get("added_tokens").and_then(Value::as_array).into_iter().flatten() {
        let content = token.get("content").and_then(Value::as_str);
        let id = token.get("id").and_then(Value::as_u64).and_then(|id| u32::try_from(id).ok());
        let (Some(content), Some(id)) = (content, id) else { continue };
        let is = |flag: &str| token.get(flag).and_then(Value::as_bool) == Some(true);
        if is("special") && !content.is_empty() {
            added.special.push(content.to_owned());
            added.plain &= !(is("lstrip") || is("rstrip") || is("single_word") || is("normalized"));
        }
        added.ids.insert(content.to_owned(), id);
    }
    added
}

/// One more than the highest id of the model's vocabulary (a map of ids, or a list) and of the added tokens.
fn vocab_size(json: &Value, added: impl Iterator<Item = u32>) -> usize {
    let vocab = json.get("model").and_then(|model| model.get("vocab"));
    let of_model = match vocab {
        Some(Value::Object(ids)) => ids.values().filter_map(Value::as_u64).max().map_or(0, |id| id.saturating_add(1)),
        Some(Value::Array(tokens)) => tokens.len() as u64,
        _ => 0,
    };
    let of_added = added.max().map_or(0, |id| u64::from(id) + 1);
    usize::try_from(of_model.max(of_added)).unwrap_or(usize::MAX)
}
