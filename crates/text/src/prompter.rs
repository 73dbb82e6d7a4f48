//! Questions to ids, and generated ids back to text.

use std::path::Path;

use crate::{ChatTemplate, Error, Tokenizer};

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
