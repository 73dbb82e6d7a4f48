//! Which part of a rendered conversation the assistant says, in text and in tokens.

use std::ops::Range;

use serde_json::Value;

use crate::{ChatTemplate, Conversation, Error, Rendered, SpecialInText, Tokenizer, rendered::word};

impl ChatTemplate {
    /// The byte ranges of `rendered`, which [`ChatTemplate::render_told`] made of `conversation`, that the assistant
    /// says: all that a model would generate behind the template's generation prompt (thinking, content, tool calls) and
    /// the special token that closes the turn. Ascending and disjoint.
    ///
    /// A message is found by putting a marker in place of its content and rendering again: what precedes its turn is
    /// then equal in both texts from their start, and what follows it from their end. Several turns are looked for
    /// with a marker each in one rendering first.
    ///
    /// # Errors
    /// If the template does not write a message's content once, or another message's text depends on it.
    pub fn assistant_spans(
        &self,
        conversation: &Conversation<'_>,
        rendered: &Rendered,
        tokenizer: &Tokenizer,
    ) -> Result<Vec<Range<usize>>, Error> {
        let own = rendered.own_tokens(tokenizer);
        let marker = word(&rendered.text, "assistantcontent");
        if let Some(spans) = self.spans_at_once(conversation, &rendered.text, &own, &marker, tokenizer) {
            return Ok(spans);
        }
        let mut messages = conversation.messages.to_vec();
        let mut spans: Vec<Range<usize>> = Vec::new();
        for (index, message) in conversation.messages.iter().enumerate() {
            if message.get("role").and_then(Value::as_str) != Some("assistant") {
                continue;
            }
            messages[index] = with_content(message, &marker);
            let marked = self.render_told(&Conversation { messages: &messages, ..*conversation }, tokenizer)?;
            messages[index] = message.clone();
            let span = self
                .span(&rendered.text, &own, &marked, &marker, tokenizer)
                .filter(|span| spans.last().is_none_or(|last| last.end <= span.start))
                .ok_or(Error::Span { message: index + 1 })?;
            spans.push(span);
        }
        Ok(spans)
    }

    /// All turns with one rendering, in which each has a marker of its own; `None` if this cannot tell them. `own` are the
    /// template's tokens in `text`.
    ///
    /// The markers may change nothing but the text between two of the template's tokens: then both texts have the same
    /// tokens in the same order, and what stands between them is the same wherever there is no marker.
    fn spans_at_once(
        &self,
        conversation: &Conversation<'_>,
        text: &str,
        own: &[Range<usize>],
        marker: &str,
        tokenizer: &Tokenizer,
    ) -> Option<Vec<Range<usize>>> {
        let says = |message: &Value| message.get("role").and_then(Value::as_str) == Some("assistant");
        let turns = conversation.messages.iter().filter(|message| says(message)).count();
        if turns < 2 {
            return None;
        }
        let mut messages = conversation.messages.to_vec();
        for (turn, message) in messages.iter_mut().filter(|message| says(message)).enumerate() {
            *message = with_content(message, &format!("{marker}{turn:06}"));
        }
        let marked = self.render_told(&Conversation { messages: &messages, ..*conversation }, tokenizer).ok()?;
        let marked_own = marked.own_tokens(tokenizer);
        let mut spans: Vec<Range<usize>> = Vec::with_capacity(turns);
        let (mut done, mut marked_done) = (0, 0);
        for (token, marked_token) in own.iter().zip(&marked_own) {
            let between = &marked.text[marked_done..marked_token.start];
            if let Some((before, after)) = between.split_once(marker) {
                let after = after.strip_prefix(&format!("{:06}", spans.len()))?;
                let before = format!("{}{before}", &text[..done]);
                let start = self.turn_start(&before, own, tokenizer);
                let follows = spans.last().is_none_or(|last| last.end <= start) && start <= token.start;
                if !follows || after.contains(marker) || !text.starts_with(&before[..start]) {
                    return None;
                }
                spans.push(start..token.end);
            } else if between != &text[done..token.start] {
                return None;
            }
            if text[token.clone()] != marked.text[marked_token.clone()] {
                return None;
            }
            (done, marked_done) = (token.end, marked_token.end);
        }
        let same = own.len() == marked_own.len() && text[done..] == marked.text[marked_done..];
        (same && spans.len() == turns).then_some(spans)
    }

    /// One turn. `own` are the template's tokens in `text`.
    fn span(
        &self,
        text: &str,
        own: &[Range<usize>],
        marked: &Rendered,
        marker: &str,
        tokenizer: &Tokenizer,
    ) -> Option<Range<usize>> {
        let (before, after) = marked.text.split_once(marker)?;
        if after.contains(marker) {
            return None;
        }
        let content_end = before.len() + marker.len();
        let closing = marked.own_tokens(tokenizer).into_iter().find(|token| token.start >= content_end);
        let (closing, rest) = match closing {
            Some(token) => (token.len(), &marked.text[token.start..]),
            None => (0, after),
        };
        let start = self.turn_start(before, own, tokenizer);
        let end = text.len().checked_sub(rest.len())?;
        let found = text.starts_with(&before[..start]) && text.ends_with(rest) && start <= end;
        found.then_some(start..end + closing)
    }

    /// Where in the text before a turn's content the turn starts: behind the generation prompt, or as much of it as
    /// stands there.
    fn turn_start(&self, before: &str, own: &[Range<usize>], tokenizer: &Tokenizer) -> usize {
        let prompt = self.generation_prompt();
        let head = tokenizer.special_tokens().contents().iter().find(|token| prompt.starts_with(token.as_str()));
        let at = match head {
            Some(head) => own
                .iter()
                .rev()
                .map(|token| token.start)
                .find(|start| before.get(*start..).is_some_and(|text| text.starts_with(head.as_str()))),
            None if prompt.is_empty() => None,
            None => before.rfind(prompt),
        };
        match at {
            Some(at) => {
                let same = before[at..].chars().zip(prompt.chars()).take_while(|(a, b)| a == b);
                at + same.map(|(c, _)| c.len_utf8()).sum::<usize>()
            }
            None => before.len(),
        }
    }
}

impl Tokenizer {
    /// The ids of a text, and for each whether it holds text of one of the `spans` (byte ranges, ascending, disjoint).
    /// The ids are those of [`Tokenizer::encode_text`]; a token that reaches over the border of a span belongs to it.
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode_text`].
    pub fn encode_spans(
        &self,
        text: &str,
        special: SpecialInText,
        spans: &[Range<usize>],
    ) -> Result<(Vec<u32>, Vec<bool>), Error> {
        inside(text.len(), spans, |part| self.encode_text(&text[part], special))
    }

    /// [`Tokenizer::encode_spans`] for a rendered conversation and its [`ChatTemplate::assistant_spans`].
    ///
    /// # Errors
    /// Those of [`Tokenizer::encode_rendered`].
    pub fn encode_rendered_spans(
        &self,
        rendered: &Rendered,
        special: SpecialInText,
        spans: &[Range<usize>],
    ) -> Result<(Vec<u32>, Vec<bool>), Error> {
        inside(rendered.text.len(), spans, |part| self.encode_part(rendered, special, part))
    }
}

/// The ids of a text of `length` bytes, and for each whether it holds text of one of the spans.
fn inside(
    length: usize,
    spans: &[Range<usize>],
    encode: impl Fn(Range<usize>) -> Result<Vec<u32>, Error>,
) -> Result<(Vec<u32>, Vec<bool>), Error> {
    let ids = encode(0..length)?;
    // As a rule no token reaches over a border, and the parts encode to the whole.
    let mut parts = Vec::with_capacity(ids.len());
    let mut inside = Vec::with_capacity(ids.len());
    let mut done = 0;
    for span in spans {
        parts.extend(encode(done..span.start)?);
        inside.resize(parts.len(), false);
        parts.extend(encode(span.clone())?);
        inside.resize(parts.len(), true);
        done = span.end;
    }
    parts.extend(encode(done..length)?);
    inside.resize(parts.len(), false);
    if parts == ids {
        return Ok((ids, inside));
    }
    // Otherwise a span's tokens are those that neither the text before it nor the text behind it explains.
    let mut inside = vec![false; ids.len()];
    for span in spans {
        let before = encode(0..span.start)?;
        let behind = encode(span.end..length)?;
        let start = before.iter().zip(&ids).take_while(|(a, b)| a == b).count();
        let behind = behind.iter().rev().zip(ids.iter().rev()).take_while(|(a, b)| a == b).count();
        let end = (ids.len() - behind).max(start);
        inside[start..end].fill(true);
    }
    Ok((ids, inside))
}

/// The message with other content, in the form that it has: text, or a list of parts.
fn with_content(message: &Value, content: &str) -> Value {
    let mut message = message.clone();
    message["content"] = match message.get("content") {
        Some(Value::Array(_)) => serde_json::json!([{ "type": "text", "text": content }]),
        _ => content.into(),
    };
    message
}
