//! What can be asked of a [`Node`] and done to it.

use crate::{Key, Node, Span, Value, scalar};

impl Node {
    /// A mapping without entries.
    pub fn empty_mapping(span: Span) -> Self {
        Self { span, value: Value::Mapping(Vec::new()) }
    }

    /// Whether it is nothing: empty, `~` or `null`, without quotes.
    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if scalar::is_null(text))
    }

    /// The text of a scalar that is not nothing.
    pub fn as_text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar { text, .. } if !self.is_null() => Some(text),
            _ => None,
        }
    }

    /// The entries of a mapping.
    pub fn entries(&self) -> Option<&[(Key, Self)]> {
        match &self.value {
            Value::Mapping(entries) => Some(entries),
            _ => None,
        }
    }

    /// The value of a mapping's key.
    pub fn get(&self, key: &str) -> Option<&Self> {
        self.entries()?.iter().find(|(name, _)| name.name == key).map(|(_, value)| value)
    }

    /// Where the value at `path` stands: keys, and indices of lists, with dots between them (`lora.r`, `prompts.0`).
    /// What is not there has the place of its nearest parent that is.
    pub fn span_at(&self, path: &str) -> Span {
        let mut node = self;
        for part in path.split('.').filter(|part| !part.is_empty()) {
            let child = match &node.value {
                Value::Mapping(_) => node.get(part),
                Value::Sequence(items) => part.parse::<usize>().ok().and_then(|index| items.get(index)),
                Value::Scalar { .. } => None,
            };
            match child {
                Some(child) => node = child,
                None => break,
            }
        }
        node.span
    }

    /// The same value as JSON. Plain scalars are what YAML 1.2 makes of them: `null`, `true`, `false`, numbers, text.
    pub fn to_json(&self) -> serde_json::Value {
        match &self.value {
            Value::Scalar { text, quoted: true } => text.as_str().into(),
            Value::Scalar { text, quoted: false } => match scalar::resolve(text) {
                scalar::Plain::Null => serde_json::Value::Null,
                scalar::Plain::Bool(value) => value.into(),
                scalar::Plain::Unsigned(value) => value.into(),
                scalar::Plain::Signed(value) => value.into(),
                scalar::Plain::Float(value) => value.into(),
                scalar::Plain::Text => text.as_str().into(),
            },
            Value::Sequence(items) => items.iter().map(Self::to_json).collect(),
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.name.clone(), value.to_json()));
                serde_json::Value::Object(entries.collect())
            }
        }
    }

    /// Moves every place by `offset` bytes: for a text that stands behind others in one range of offsets.
    pub fn shift(&mut self, offset: usize) {
        self.span.shift(offset);
        match &mut self.value {
            Value::Scalar { .. } => {}
            Value::Sequence(items) => items.iter_mut().for_each(|item| item.shift(offset)),
            Value::Mapping(entries) => {
                for (key, value) in entries {
                    key.span.shift(offset);
                    value.shift(offset);
                }
            }
        }
    }

    /// What it is, in the words of an error: `` `8` ``, "nothing", "a list".
    pub fn describe(&self) -> String {
        match &self.value {
            Value::Scalar { .. } if self.is_null() => "nothing".to_owned(),
            Value::Scalar { text, quoted } => {
                let mut shown: String = text.chars().take(SHOWN_CHARACTERS).collect();
                if shown.len() < text.len() {
                    shown.push('…');
                }
                let shown = shown.escape_debug().to_string().replace("\\'", "'").replace("\\\"", "\"");
                if *quoted { format!("the text \"{shown}\"") } else { format!("`{shown}`") }
            }
            Value::Sequence(_) => "a list".to_owned(),
            Value::Mapping(_) => "a mapping".to_owned(),
        }
    }
}

/// How much of a value an error repeats.
const SHOWN_CHARACTERS: usize = 60;

impl Span {
    /// Moves it by `offset` bytes.
    pub fn shift(&mut self, offset: usize) {
        self.start += offset;
        self.end += offset;
    }
}
