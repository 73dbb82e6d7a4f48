//! The fields of `with:` of a `tokenize` stage.

use std::collections::{BTreeMap, BTreeSet};

use pipe_records::{Format, TextDocument};
use pipe_samples::TruncationSide;
use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::template::PromptTemplate;

use crate::Shape;

/// How a `tokenize` stage makes samples of rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How the rows are written in the files of `data`. Default: found out, by name and first bytes.
    pub format: Option<Format>,
    /// What one row is in text files: the whole `file`, or each `line` that is not blank. Default `file`.
    pub text_document: TextDocument,
    /// What fields the rows have. Default: found out row by row; where several fit, the first in this list counts:
    /// `sharegpt`, `messages`, `input_ids`, `alpaca`, `prompt_completion`, `question_answer`, `text`.
    pub shape: Option<Shape>,
    /// The data's columns for fields of a shape: `{ prompt: question, completion: answer }`. Dots lead into objects and
    /// lists: `answers.text.0`. Rows are then of a shape that knows all of these fields. Default: none, columns are
    /// called what the fields are.
    pub columns: BTreeMap<String, String>,
    /// The most tokens that a sample may have, 1 or more; `on_too_long` says what becomes of longer rows. Default 384.
    #[schemars(range(min = 1))]
    pub max_length: u64,
    /// What becomes of rows of more than `max_length` tokens. Default `truncate`.
    pub on_too_long: OnTooLong,
    /// At which side `on_too_long: truncate` takes tokens away, as the tokenizer's `truncation_side` in Transformers does.
    /// Default `right`.
    pub truncation_side: TruncationSide,
    /// Samples are never padded, training packs them: must be false. Default false.
    pub padding: bool,
    /// Which tokens the loss counts. Default `all`.
    pub loss_on: LossOn,
    /// End `text` and `prompt`/`completion` rows with the tokenizer's end token, before they are cut. A chat template
    /// closes its turns itself: rows of messages stay as it writes them. Default false.
    pub add_eos: bool,
    /// What special tokens are that stand in a row's own text (`<|im_end|>` in a message, a tool's result, a `text`).
    /// Default `text`.
    pub special_tokens_in_text: SpecialTokensInText,
    /// Variables for the chat template, as keyword arguments of `apply_chat_template` are in Transformers:
    /// `enable_thinking: false`, or `date_string: 24 Nov 2026`. What then belongs to the generation prompt, such as the
    /// empty thinking block of Qwen3, is not counted as the assistant's. Default: none.
    pub chat_template_kwargs: BTreeMap<String, serde_json::Value>,
    /// System prompts: every conversation without a system message of its own draws one of these, and gets it as its first
    /// message. Others, and rows that are no conversations, stay as they are. Default: none.
    pub system_prompts: Vec<String>,
    /// Texts with `{prompt}` in them: every row draws one, and its first user message, or the `prompt` of
    /// `prompt`/`completion`, is put in that place. Braces are written as in Python's `str.format`: `{{` and `}}` stand for
    /// one. Rows without a prompt stay as they are. Default: none.
    pub prompt_templates: Vec<String>,
    /// How often the data is gone through, 1 to 1,000,000: all of it once, then all of it again, where no row draws the same
    /// system prompt or template twice before it has drawn all of them. Default 1.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub repeat: u32,
    /// Seeds what rows draw, 0 to 2^64 - 1. Default 42.
    pub seed: u64,
    /// What to do with a row that cannot be used. Default `fail`.
    pub on_bad_row: OnBadRow,
    /// Rows that a thread takes at once, 1 or more. Default 256.
    #[schemars(range(min = 1), extend("x-execution-only" = true))]
    pub batch_size: u64,
    /// Threads, 1 or more. Default: the stage's `cpus`, else all cores.
    #[schemars(range(min = 1), extend("x-execution-only" = true))]
    pub num_proc: Option<u64>,
}

/// What becomes of rows that are too long.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnTooLong {
    /// They lose tokens.
    Truncate,
    /// They are left out, and counted.
    Drop,
}

/// Which tokens the loss counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LossOn {
    /// Every token.
    All,
    /// What the assistant says, up to and including the token that ends its turn; of `prompt`/`completion` rows the
    /// completion.
    Assistant,
}

/// What special tokens are that stand in a row's own text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokensInText {
    /// Text like any other, so that no row can end a turn or begin one. Those that the chat template writes are tokens.
    Text,
    /// Tokens, as Transformers takes them: for texts that a chat template has already been applied to.
    Parse,
}

/// What to do with a row that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnBadRow {
    /// Stop, and name the row.
    Fail,
    /// Leave it out, and count it.
    Skip,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            format: None,
            text_document: TextDocument::File,
            shape: None,
            columns: BTreeMap::new(),
            max_length: 384,
            on_too_long: OnTooLong::Truncate,
            truncation_side: TruncationSide::Right,
            padding: false,
            loss_on: LossOn::All,
            add_eos: false,
            special_tokens_in_text: SpecialTokensInText::Text,
            chat_template_kwargs: BTreeMap::new(),
            system_prompts: Vec::new(),
            prompt_templates: Vec::new(),
            repeat: 1,
            seed: 42,
            on_bad_row: OnBadRow::Fail,
            batch_size: 256,
            num_proc: None,
        }
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        self.validate_columns(problems);
        problems.require(self.max_length >= 1, "max_length", "must be at least 1");
        if self.padding {
            problems.at_with_help("padding", "samples are never padded", "remove it, or set it to false");
        }
        for name in pipe_text::RESERVED.into_iter().filter(|name| self.chat_template_kwargs.contains_key(*name)) {
            let path = format!("chat_template_kwargs.{name}");
            problems.at_with_help(&path, "is what the stage itself hands to the template", "remove it");
        }
        for (index, text) in self.system_prompts.iter().enumerate() {
            problems.require(!text.is_empty(), &format!("system_prompts.{index}"), "must not be empty");
        }
        for (index, text) in self.prompt_templates.iter().enumerate() {
            if let Err(error) = PromptTemplate::parse(text) {
                let help = "write {prompt} where the row's prompt belongs, and {{ or }} for a brace";
                problems.at_with_help(&format!("prompt_templates.{index}"), error.to_string(), help);
            }
        }
        problems.require((1..=1_000_000).contains(&self.repeat), "repeat", "must be from 1 to 1,000,000");
        problems.require(self.batch_size >= 1, "batch_size", "must be at least 1");
        problems.require(self.num_proc != Some(0), "num_proc", "must be at least 1");
    }
}

impl Config {
    fn validate_columns(&self, problems: &mut Problems) {
        let shapes = self.shape.as_ref().map_or(Shape::ALL, std::slice::from_ref);
        let known: BTreeSet<&str> = shapes.iter().flat_map(|shape| shape.fields()).copied().collect();
        let unknown: Vec<_> = self.columns.keys().filter(|field| !known.contains(field.as_str())).collect();
        for field in &unknown {
            let (path, shape) = (format!("columns.{field}"), self.shape.map(Shape::name));
            let message = shape.map_or_else(
                || "is no field of any shape".to_owned(),
                |shape| format!("is no field of the shape `{shape}`"),
            );
            match pipe_yaml::unknown_name_help(field, known.iter().copied()) {
                Some(help) => problems.at_with_help(&path, message, help),
                None => problems.at(&path, message),
            }
        }
        if unknown.is_empty() && Shape::possible(self.shape, &self.columns).is_empty() {
            problems.at_with_help("columns", "has fields that no single shape has", "name the fields of one shape");
        }
        for (field, _) in self.columns.iter().filter(|(_, column)| column.is_empty()) {
            problems.at(&format!("columns.{field}"), "names no column");
        }
    }
}
