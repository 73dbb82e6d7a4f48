//! What a model must know of its tokenizer: how many ids there are, and which end and fill up a text.

use std::{
    collections::HashMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TokenizerError {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} is not a byte-pair tokenizer that can be read", path.display())]
    Json { path: PathBuf, source: serde_json::Error },
    #[error("{} has no tokens", path.display())]
    Empty { path: PathBuf },
    #[error("{}: {field} `{token}` is no token of tokenizer.json", path.display())]
    UnknownToken { path: PathBuf, field: &'static str, token: String },
}

/// What a tokenizer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tokens {
    /// The highest id and one.
    pub(crate) size: u32,
    /// The id of `eos_token`.
    pub(crate) eos: Option<u32>,
    /// The id of `pad_token`.
    pub(crate) pad: Option<u32>,
}

#[derive(Deserialize)]
struct TokenizerFile {
    model: Model,
    #[serde(default)]
    added_tokens: Vec<AddedToken>,
}

#[derive(Deserialize)]
struct Model {
    vocab: HashMap<String, u32>,
}

#[derive(Deserialize)]
struct AddedToken {
    id: u32,
    content: String,
}

#[derive(Deserialize, Default)]
struct SettingsFile {
    eos_token: Option<serde_json::Value>,
    pad_token: Option<serde_json::Value>,
}

impl Tokens {
    /// Reads `tokenizer.json` and, where it is there, `tokenizer_config.json`.
    pub(crate) fn open(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer.json");
        let file: TokenizerFile = read(&path)?;
        let mut ids = file.model.vocab;
        ids.extend(file.added_tokens.into_iter().map(|token| (token.content, token.id)));
        let size = ids.values().max().and_then(|id| id.checked_add(1));
        let size = size.ok_or(TokenizerError::Empty { path })?;

        let path = folder.join("tokenizer_config.json");
        let settings: SettingsFile = if path.exists() { read(&path)? } else { SettingsFile::default() };
        let id_of = |field, value: Option<serde_json::Value>| {
            // A plain string, or an object with the string and its spacing.
            let token = value.and_then(|value| value.get("content").unwrap_or(&value).as_str().map(str::to_owned));
            let Some(token) = token else { return Ok(None) };
            match ids.get(&token) {
                Some(id) => Ok(Some(*id)),
                None => Err(TokenizerError::UnknownToken { path: path.clone(), field, token }),
            }
        };
        Ok(Self { size, eos: id_of("eos_token", settings.eos_token)?, pad: id_of("pad_token", settings.pad_token)? })
    }
}

fn read<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<T, TokenizerError> {
    let text = fs::read(path).map_err(|source| TokenizerError::Read { path: path.to_owned(), source })?;
    serde_json::from_slice(&text).map_err(|source| TokenizerError::Json { path: path.to_owned(), source })
}
