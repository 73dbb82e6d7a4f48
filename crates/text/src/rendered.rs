//! A conversation as its template writes it, and as the tokenizer reads it.

use std::ops::Range;

use serde_json::Value;

use crate::{
    ChatTemplate, Conversation, Error, Tokenizer,
    special::{Look, Marks},
};

/// What a chat template made of a conversation, with the special tokens that it wrote itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendered {
    pub(crate) text: String,
    /// The places of the template's own tokens; `None` where the conversation cannot have brought any others.
    pub(crate) own: Option<Vec<Range<usize>>>,
    in_text: usize,
}

/// What special tokens are that stand in the text of a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialInText {
    /// Text like any other.
    Text,
    /// Special tokens.
    Parse,
}

impl Rendered {
    /// The text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// How many special tokens the conversation brought in its own text.
    pub fn special_in_text(&self) -> usize {
        self.in_text
    }

    /// The special token of the template that ends at a byte of the text, such as the one that closes a turn at the end
    /// of its span.
    pub fn token_that_ends_at(&self, end: usize, tokenizer: &Tokenizer) -> Option<u32> {
        let token = self.own_tokens(tokenizer).into_iter().find(|token| token.end == end)?;
        tokenizer.id(&self.text[token])
    }

    /// The places of the template's own special tokens.
    pub(crate) fn own_tokens(&self, tokenizer: &Tokenizer) -> Vec<Range<usize>> {
        self.own.clone().unwrap_or_else(|| tokenizer.special_tokens().find(&self.text))
    }
}

impl ChatTemplate {
    /// Renders a conversation, and tells the template's own special tokens from those that the conversation brings.
    ///
    /// # Errors
    /// If the template refuses it, or does to special tokens in its text what it does not do to words.
    pub fn render_told(&self, conversation: &Conversation<'_>, tokenizer: &Tokenizer) -> Result<Rendered, Error> {
        let text = self.render(conversation)?;
        let special = tokenizer.special_tokens();
        let suspect = |value: &Value| special.may_be_in(value);
        if !conversation.messages.iter().any(suspect) && !conversation.tools.is_some_and(suspect) {
            return Ok(Rendered { text, own: None, in_text: 0 });
        }
        let word = word(&text, "specialtokenintext");
        for look in [Look::Pieces, Look::Tokens] {
            let mut marks = Marks::new(special, look, &word);
            let messages: Vec<Value> = conversation.messages.iter().map(|message| marks.put(message)).collect();
            let tools = conversation.tools.map(|tools| marks.put(tools));
            let marked = Conversation { messages: &messages, tools: tools.as_ref(), ..*conversation };
            let places = self.render(&marked).ok().and_then(|marked| marks.places(&marked, &text));
            if let Some(places) = places {
                let (own, in_text) = special.find_own(&text, &places);
                return Ok(Rendered { text, own: Some(own), in_text });
            }
        }
        // Nothing but pieces may have been in the way, which a template may well treat as it likes.
        let mut marks = Marks::new(special, Look::Tokens, &word);
        let tokens = conversation.messages.iter().chain(conversation.tools).any(|value| marks.put(value) != *value);
        if tokens { Err(Error::SpecialInText) } else { Ok(Rendered { text, own: None, in_text: 0 }) }
    }
}

impl Tokenizer {
    /// The ids of a rendered conversation.
    ///
    /// # Errors
    /// If the text is longer than 4 GiB, or special tokens of its text cannot be kept as text.
    pub fn encode_rendered(&self, rendered: &Rendered, special: SpecialInText) -> Result<Vec<u32>, Error> {
        self.encode_part(rendered, special, 0..rendered.text.len())
    }

    /// The ids of a part of a rendered conversation, which cuts none of the template's tokens.
    pub(crate) fn encode_part(
        &self,
        rendered: &Rendered,
        special: SpecialInText,
        part: Range<usize>,
    ) -> Result<Vec<u32>, Error> {
        let own = match (&rendered.own, special) {
            (Some(own), SpecialInText::Text) if rendered.in_text > 0 => own,
            _ => return self.encode(&rendered.text[part]),
        };
        if !self.stands_apart() {
            return Err(Error::NotApart);
        }
        let mut ids = Vec::with_capacity(part.len() / 3);
        let mut done = part.start;
        for token in own.iter().filter(|token| part.start <= token.start && token.end <= part.end) {
            ids.extend(self.encode_text(&rendered.text[done..token.start], SpecialInText::Text)?);
            ids.extend(self.encode(&rendered.text[token.clone()])?);
            done = token.end;
        }
        ids.extend(self.encode_text(&rendered.text[done..part.end], SpecialInText::Text)?);
        Ok(ids)
    }
}

/// A word that does not occur in a text.
pub(crate) fn word(text: &str, base: &str) -> String {
    let mut word = base.to_owned();
    while text.contains(&word) {
        word.push('x');
    }
    word
}
