//! Questions to ids, and generated ids back to text.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{ChatTemplate, Conversation, Error, SpecialInText, Tokenizer};

/// The tokenizer of a model folder together with its chat template, if it has one.
pub struct Prompter {
    tokenizer: Tokenizer,
    template: Option<ChatTemplate>,
}

impl Prompter {
    /// Loads both from a model folder.
    ///
    /// # Errors
    /// If the folder has no tokenizer, or a file is broken.
    pub fn load(folder: &Path) -> Result<Self, Error> {
        Ok(Self { tokenizer: Tokenizer::load(folder)?, template: ChatTemplate::load(folder)? })
    }

    /// Gives the template more variables: see [`ChatTemplate::with_kwargs`].
    #[must_use]
    pub fn with_kwargs(mut self, kwargs: &Map<String, Value>) -> Self {
        self.template = self.template.map(|template| template.with_kwargs(kwargs));
        self
    }

    /// Whether there is a chat template.
    pub fn has_template(&self) -> bool {
        self.template.is_some()
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The ids of a conversation, open for the next answer. Special tokens that stand in its text are text. Without a
    /// chat template the contents of the messages are taken as they are, one behind the other.
    ///
    /// # Errors
    /// If the template refuses the conversation, or does to special tokens in its text what it does not do to words.
    pub fn encode_conversation(&self, messages: &[Value]) -> Result<Vec<u32>, Error> {
        let Some(template) = &self.template else {
            let contents: Vec<&str> = messages.iter().filter_map(|message| message.get("content")?.as_str()).collect();
            return self.tokenizer.encode_text(&contents.join("\n"), SpecialInText::Text);
        };
        let conversation = Conversation { messages, tools: None, add_generation_prompt: true };
        let rendered = template.render_told(&conversation, &self.tokenizer)?;
        self.tokenizer.encode_rendered(&rendered, SpecialInText::Text)
    }

    /// The ids of a question, open for the answer. Without a chat template the text is taken as it is.
    ///
    /// # Errors
    /// If the template refuses the question, or it is longer than 4 GiB.
    pub fn encode(&self, question: &str) -> Result<Vec<u32>, Error> {
        match &self.template {
            Some(template) => self.tokenizer.encode(&template.prompt(question)?),
            None => self.tokenizer.encode(question),
        }
    }

    /// The text of an answer, without special tokens.
    ///
    /// # Errors
    /// If the tokenizer's decoder refuses the tokens.
    pub fn decode(&self, answer: &[u32]) -> Result<String, Error> {
        self.tokenizer.decode(answer, true)
    }

    /// The tokens that end an answer.
    pub fn end_ids(&self) -> &[u32] {
        self.tokenizer.end_ids()
    }
}
