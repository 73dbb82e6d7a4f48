//! The fields of `with:` of an `export` stage.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    formats::{Format, Formats, GgufType, WeightType},
    size::Size,
};

/// What an `export` stage writes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What to write: `adapter` (PEFT), `merged` (a Hugging Face model), `gguf` (the merged model for llama.cpp),
    /// `gguf_adapter` (the adapter alone for llama.cpp), `ollama` (GGUF and Modelfile) or `bnb4` (merged and quantised to
    /// NF4 again); one, or a list. One stands at the top of the artifact, several in folders of their names.
    /// Default `adapter`.
    pub format: Formats,
    /// Which weights the adapter is added to: `dequantized` (what an NF4 base stands for, on which the adapter was
    /// trained) or `original` (the weights before quantisation, from the input `original`). Default: what was trained on.
    pub merge_into: Option<MergeInto>,
    /// The type of merged weights: `bf16`, `fp16` or `fp32`. The sum is computed in float64 and rounded for the file. Default:
    /// the type of the model's weights, or of what they were quantised from.
    pub dtype: Option<WeightType>,
    /// The most bytes of one file of `merged` weights, such as `5GB` or `512MiB`; a larger tensor has a file of its own.
    /// Default `5GB`.
    pub max_shard_size: Size,
    /// The type of the matrices of a GGUF file: `f32`, `f16`, `bf16`, `q8_0` or `q4_0` (embedding and head are then
    /// `q8_0`). Rounded from the sum itself, not from `dtype`. Default: that of `dtype`.
    pub gguf_type: Option<GgufType>,
    /// Read back all that was written and compare it with what was meant, tensor by tensor and token by token. Default
    /// true.
    pub check: bool,
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

/// Which weights an adapter is added to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MergeInto {
    /// Those before quantisation.
    Original,
    /// Those that a quantised model stands for.
    Dequantized,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: Formats::default(),
            merge_into: None,
            dtype: None,
            max_shard_size: Size::default(),
            gguf_type: None,
            check: true,
            base_model_name_or_path: None,
            title: None,
            license: None,
            language: Vec::new(),
        }
    }
}

impl Validate for Config {
    fn validate(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        self.validate_formats(inputs, problems);
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

impl Config {
    /// Fields that go with certain formats only.
    fn validate_formats(&self, inputs: &BTreeSet<String>, problems: &mut Problems) {
        let has = |formats: &[Format]| self.format.iter().any(|format| formats.contains(&format));
        if self.format.iter().next().is_none() {
            problems.at("format", "must name at least one format");
        }
        if self.format.iter().collect::<BTreeSet<_>>().len() < self.format.iter().count() {
            problems.at("format", "names a format twice");
        }
        let merging = has(&[Format::Merged, Format::Gguf, Format::Ollama, Format::Bnb4]);
        let gguf = has(&[Format::Gguf, Format::Ollama, Format::GgufAdapter]);
        if self.merge_into.is_some() && !merging {
            problems.at("merge_into", "says something only with a format that merges: merged, gguf, ollama or bnb4");
        }
        if self.dtype.is_some() {
            let used = has(&[Format::Merged, Format::Bnb4]) || gguf && self.gguf_type.is_none();
            let message = "says something only for merged and bnb4, and for GGUF where `gguf_type` is not given";
            problems.require(used, "dtype", message);
        }
        if self.max_shard_size != Size::default() {
            problems.require(has(&[Format::Merged]), "max_shard_size", "says something only with the format merged");
        }
        if let Some(gguf_type) = self.gguf_type {
            problems.require(gguf, "gguf_type", "says something only with the formats gguf, gguf_adapter and ollama");
            let quantised = matches!(gguf_type, GgufType::Q8_0 | GgufType::Q4_0);
            if quantised && gguf && !has(&[Format::Gguf, Format::Ollama]) {
                problems.at("gguf_type", "must be f32, f16 or bf16 for gguf_adapter: an adapter is not quantised");
            }
        }
        if self.merge_into == Some(MergeInto::Dequantized) && inputs.contains("original") {
            problems.at_with_help(
                "merge_into",
                "is `dequantized`, so the input `original` is not read",
                "leave the input out, or set `merge_into: original`",
            );
        }
        if let Some(format) = self.format.iter().find(|format| format.is_adapter())
            && !inputs.contains("adapter")
        {
            problems.at("format", format!("is `{}`, so the stage needs the input `adapter`", format.name()));
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
