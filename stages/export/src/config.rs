//! The fields of `with:` of an `export` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What an `export` stage says about the adapter.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The name under which the base model is published, such as `Qwen/Qwen3-1.7B`, for `adapter_config.json` and the
    /// model card; never a path. PEFT finds the base by it. Default: none, and the reader of the adapter names it.
    pub base_model_name_or_path: Option<String>,
    /// The title of the model card. Default: made from the base's name, or `LoRA adapter`.
    pub title: Option<String>,
    /// The licence of the adapter, as an identifier of the Hugging Face hub such as `apache-2.0`. Default: none.
    pub license: Option<String>,
    /// The languages of the adapter, as ISO 639 codes such as `en` and `zh`. Default: none.
    pub language: Vec<String>,
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        if let Some(name) = &self.base_model_name_or_path
            && !is_hub_name(name)
        {
            problems.at_with_help(
                "base_model_name_or_path",
                format!("`{name}` is not the name of a published model"),
                "write it as `owner/name`; an artifact holds no path of this machine",
            );
        }
        for (field, text) in [("title", &self.title), ("license", &self.license)] {
            if let Some(text) = text {
                problems.require(is_one_line(text), field, "must be one line of text");
            }
        }
        for code in &self.language {
            let is_code =
                (2..=16).contains(&code.len()) && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
            problems.require(is_code, "language", format!("`{code}` is not a language code such as `en` or `zh`"));
        }
    }
}

fn is_one_line(text: &str) -> bool {
    !text.trim().is_empty() && !text.contains(char::is_control)
}

/// Whether `name` is `name` or `owner/name` of a model hub.
pub(crate) fn is_hub_name(name: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    let mut parts = name.split('/');
    parts.by_ref().take(2).all(is_part) && parts.next().is_none()
}
