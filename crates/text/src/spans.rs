//! Which part of a rendered conversation the assistant says, in text and in tokens.

use std::ops::Range;

use minijinja::value::{Serde, Value};

use crate::{ChatTemplate, Conversation, Error, Tokenizer, template::tools};

impl ChatTemplate {
    /// The byte ranges of `rendered`, which [`ChatTemplate::render`] made of `conversation`, that the assistant says:
    /// all that a model would generate behind the template's generation prompt (thinking, content, tool calls) and the
    /// special token that closes the turn. Ascending and disjoint.
    ///
    /// A message is found by putting a marker in place of its content and rendering again: what precedes its turn is
    /// then equal in both texts from their start, and what follows it from their end.
    ///
    /// # Errors
    /// If the template does not write a message's content once, or another message's text depends on it.
    pub fn assistant_spans(
        &self,
        conversation: &Conversation<'_>,
        rendered: &str,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Range<usize>>, Error> {
        let messages: Vec<Value> = conversation.messages.iter().map(|message| Value::from(Serde(message))).collect();
        let marker = marker(rendered);
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (index, message) in conversation.messages.iter().enumerate() {
            if message.get("role").and_then(serde_json::Value::as_str) != Some("assistant") {
                continue;
            }
            let mut marked = messages.clone();
            marked[index] = with_content(message, &marker);
            let text = self.render_values(marked, tools(conversation), conversation.add_generation_prompt)?;
            let span = self
                .span(rendered, &text, &marker, tokenizer)
                .filter(|span| spans.last().is_none_or(|last| last.end <= span.start))
                .ok_or(Error::Span { message: index + 1 })?;
            spans.push(span);
        }
        Ok(spans)
    }

    fn span(&self, rendered: &str, marked: &str, marker: &str, tokenizer: &Tokenizer) -> Option<Range<usize>> {
        let (before, after) = marked.split_once(marker)?;
        if after.contains(marker) {
            return None;
        }
        let special = tokenizer.special_tokens();
        let start = turn_start(before, self.generation_prompt(), special);
        let (closing, rest) = match first_special(after, special) {
            Some(range) => (range.len(), &after[range.start..]),
            None => (0, after),
        };
        let end = rendered.len().checked_sub(rest.len())?;
        let found = rendered.starts_with(&before[..start]) && rendered.ends_with(rest) && start <= end;
        found.then_some(start..end + closing)
    }
}

impl Tokenizer {
    /// The ids of a text, and for each whether it holds text of one of the `spans` (byte ranges, ascending, disjoint).
    /// The ids are those of [`Tokenizer::encode`]; a token that reaches over the border of a span belongs to it.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode`].
    pub fn encode_spans(&self, text: &str, spans: &[Range<usize>]) -> Result<(Vec<u32>, Vec<bool>), Error> {
        let ids = self.encode(text)?;
        // As a rule no token reaches over a border, and the parts encode to the whole.
        let mut parts = Vec::with_capacity(ids.len());
        let mut inside = Vec::with_capacity(ids.len());
        let mut done = 0;
        for span in spans {
            parts.extend(self.encode(&text[done..span.start])?);
            inside.resize(parts.len(), false);
            parts.extend(self.encode(&text[span.clone()])?);
            inside.resize(parts.len(), true);
            done = span.end;
        }
        parts.extend(self.encode(&text[done..])?);
        inside.resize(parts.len(), false);
        if parts == ids {
            return Ok((ids, inside));
        }
        // Otherwise a span's tokens are those that neither the text before it nor the text behind it explains.
        let mut inside = vec![false; ids.len()];
        for span in spans {
            let before = self.encode(&text[..span.start])?;
            let behind = self.encode(&text[span.end..])?;
            let start = before.iter().zip(&ids).take_while(|(a, b)| a == b).count();
            let behind = behind.iter().rev().zip(ids.iter().rev()).take_while(|(a, b)| a == b).count();
            let end = (ids.len() - behind).max(start);
            inside[start..end].fill(true);
        }
        Ok((ids, inside))
    }
}

/// Where in the text before a turn's content the turn starts: behind the generation prompt, or as much of it as stands
/// there.
fn turn_start(before: &str, generation_prompt: &str, special: &[String]) -> usize {
    let head = special.iter().find(|token| generation_prompt.starts_with(token.as_str()));
    let head = head.map_or(generation_prompt, String::as_str);
    match before.rfind(head) {
        Some(at) if !head.is_empty() => {
            let same = before[at..].chars().zip(generation_prompt.chars()).take_while(|(a, b)| a == b);
            at + same.map(|(c, _)| c.len_utf8()).sum::<usize>()
        }
        _ => before.len(),
    }
}

/// The first special token in a text.
fn first_special(text: &str, special: &[String]) -> Option<Range<usize>> {
    let at = |token: &String| text.find(token.as_str()).map(|start| start..start + token.len());
    special.iter().filter_map(at).min_by_key(|range| (range.start, usize::MAX - range.end))
}

/// A word that does not occur in the text.
fn marker(text: &str) -> String {
    let mut marker = "assistantcontent".to_owned();
    while text.contains(&marker) {
        marker.push('x');
    }
    marker
}

/// The message with other content, in the form that it has: text, or a list of parts.
fn with_content(message: &serde_json::Value, content: &str) -> Value {
    let mut message = message.clone();
    message["content"] = match message.get("content") {
        Some(serde_json::Value::Array(_)) => serde_json::json!([{ "type": "text", "text": content }]),
        _ => content.into(),
    };
    Value::from(Serde(&message))
}
