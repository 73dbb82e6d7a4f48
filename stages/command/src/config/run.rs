//! The field `run`: a script, or a program with its arguments.

use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, SeqAccess, Visitor},
};

/// Longer commands are cut where a sentence names them, in characters.
const SHOWN: usize = 80;

/// What a stage runs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Run {
    /// A script for a shell.
    Script(String),
    /// A program and its arguments.
    Program(Vec<String>),
}

impl Run {
    /// What is wrong with it, if anything is.
    pub(super) fn problem(&self) -> Option<&'static str> {
        match self {
            Self::Script(script) if script.trim().is_empty() => Some("the script is empty"),
            Self::Program(words) if words.first().is_none_or(String::is_empty) => Some("the list names no program"),
            Self::Script(_) | Self::Program(_) => None,
        }
    }
}

impl Run {
    /// All of it: the script, or the words as a shell would take them.
    pub(crate) fn whole(&self) -> String {
        let plain = |letter: char| letter.is_alphanumeric() || "-_./=:,+@%".contains(letter);
        let quoted = |word: &String| {
            if !word.is_empty() && word.chars().all(plain) {
                word.clone()
            } else {
                format!("'{}'", word.replace('\'', r"'\''"))
            }
        };
        match self {
            Self::Script(script) => script.trim().to_owned(),
            Self::Program(words) => words.iter().map(quoted).collect::<Vec<_>>().join(" "),
        }
    }
}

/// As one line that is not too long.
impl fmt::Display for Run {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Self::Script(script) => script.trim().to_owned(),
            Self::Program(words) => words.join(" "),
        };
        let line: String = text.chars().take_while(|letter| !letter.is_control()).take(SHOWN).collect();
        let cut = if line.len() < text.len() { " ..." } else { "" };
        write!(formatter, "{line}{cut}")
    }
}

impl<'de> Deserialize<'de> for Run {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Words)
    }
}

struct Words;

impl<'de> Visitor<'de> for Words {
    type Value = Run;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a command: a text for the shell, or a list of a program and its arguments")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Run, E> {
        Ok(Run::Script(text.to_owned()))
    }

    /// `true` and `false` are commands.
    fn visit_bool<E: de::Error>(self, value: bool) -> Result<Run, E> {
        Ok(Run::Script(value.to_string()))
    }

    /// Nothing is an empty script, which is reported with what depends on other fields.
    fn visit_unit<E: de::Error>(self) -> Result<Run, E> {
        Ok(Run::Script(String::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Run, A::Error> {
        let mut words = Vec::new();
        while let Some(word) = items.next_element()? {
            words.push(word);
        }
        Ok(Run::Program(words))
    }
}

impl JsonSchema for Run {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Run".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "anyOf": [
                { "type": "string", "minLength": 1 },
                { "type": "array", "minItems": 1, "items": { "type": "string" } },
            ],
        })
    }
}
