//! Reads the small files of a model folder.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use serde_json::Value;

use crate::Error;

/// The text of a file; `None` if there is no such file.
pub(crate) fn text(folder: &Path, file: &str) -> Result<Option<String>, Error> {
    let path = folder.join(file);
    match fs::read_to_string(&path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::Io { path, source }),
    }
}

/// The JSON of a file; `None` if there is no such file.
pub(crate) fn json(folder: &Path, file: &str) -> Result<Option<Value>, Error> {
    let Some(text) = text(folder, file)? else { return Ok(None) };
    serde_json::from_str(&text).map(Some).map_err(|source| Error::Json { path: folder.join(file), source })
}

/// What `tokenizer_config.json` says. Fields that this program does not know are left alone.
#[derive(Debug, Default)]
pub(crate) struct TokenizerConfig {
    path: PathBuf,
    fields: Value,
}

impl TokenizerConfig {
    pub(crate) fn load(folder: &Path) -> Result<Self, Error> {
        const FILE: &str = "tokenizer_config.json";
        Ok(Self { path: folder.join(FILE), fields: json(folder, FILE)?.unwrap_or_default() })
    }

    /// The text of a special token such as `eos_token`: a string, or an object with `content`.
    pub(crate) fn token(&self, name: &str) -> Option<&str> {
        let token = self.fields.get(name)?;
        token.as_str().or_else(|| token.get("content")?.as_str())
    }

    /// `chat_template`: a string, or a list of named templates of which `default` is taken.
    pub(crate) fn chat_template(&self) -> Result<Option<&str>, Error> {
        let default = |templates: &'_ [Value]| {
            templates.iter().position(|template| template.get("name").and_then(Value::as_str) == Some("default"))
        };
        let template = match self.fields.get("chat_template") {
            None | Some(Value::Null) => return Ok(None),
            Some(Value::Array(templates)) => {
                default(templates).and_then(|index| templates[index].get("template")).and_then(Value::as_str)
            }
            Some(template) => template.as_str(),
        };
        template.map(Some).ok_or_else(|| Error::Field {
            path: self.path.clone(),
            field: "chat_template",
            expected: "a string, or a list of templates with one named `default`",
        })
    }
}
