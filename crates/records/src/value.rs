//! JSON text to a record. Stricter than most readers: a key that stands twice in an object is a fault, because which of
//! its values is meant cannot be told.

use std::fmt;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use crate::{Fault, Reason, Record};

const DUPLICATE: &str = "duplicate key";

/// The record that JSON text stands for.
///
/// # Errors
/// If the bytes are no UTF-8, no JSON, no object, or an object with a key twice.
pub fn parse(bytes: &[u8]) -> Result<Record, Fault> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        Reason::NotUtf8.because(format!("the row is not UTF-8 from byte {} on", error.valid_up_to() + 1))
    })?;
    match parse_text(text, "the row")? {
        Value::Object(record) => Ok(record),
        other => Err(Reason::NotAnObject.because(format!("the row is {}, not an object", describe(&other)))),
    }
}

/// The value that JSON text stands for, as strict as [`parse`]. `what` names the text in faults.
///
/// # Errors
/// If the text is no JSON, or has an object with a key twice.
pub fn parse_text(text: &str, what: &str) -> Result<Value, Fault> {
    match serde_json::from_str(text) {
        Ok(Strict(value)) => Ok(value),
        Err(error) if error.to_string().starts_with(DUPLICATE) => {
            let object = if what == "the row" { "an object".to_owned() } else { format!("an object of {what}") };
            Err(Reason::DuplicateKey.because(format!("{object} has a key twice: {error}")))
        }
        Err(_) if has_lone_surrogate(text) => {
            Err(Reason::LoneSurrogate
                .because(format!("{what} has half of a \\u surrogate pair, which is no character")))
        }
        Err(error) => Err(Reason::BrokenJson.because(format!("{what} is not valid JSON: {error}"))),
    }
}

/// What a JSON value is, for messages: `text`, `a list`.
pub fn describe(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// A value in which no object has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        StrictVisitor.deserialize(deserializer).map(Self)
    }
}

#[derive(Clone, Copy)]
struct StrictVisitor;

impl<'de> DeserializeSeed<'de> for StrictVisitor {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(self)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = fields.next_key::<String>()? {
            if object.contains_key(&key) {
                return Err(A::Error::custom(format_args!("{DUPLICATE} `{key}`")));
            }
            object.insert(key, fields.next_value_seed(self)?);
        }
        Ok(Value::Object(object))
    }
}

/// Whether a `\u` escape of JSON text is half of a surrogate pair without the other half.
fn has_lone_surrogate(text: &str) -> bool {
    let mut rest = text;
    let mut high = false;
    while let Some(at) = rest.find('\\') {
        let escape = &rest[at + 1..];
        let unit = escape.strip_prefix('u').and_then(|digits| u16::from_str_radix(digits.get(..4)?, 16).ok());
        // A pair is two escapes with nothing in between.
        if high && (at > 0 || !matches!(unit, Some(0xdc00..=0xdfff))) {
            return true;
        }
        high = match unit {
            Some(0xd800..=0xdbff) => true,
            Some(0xdc00..=0xdfff) if !high => return true,
            _ => false,
        };
        let length = if unit.is_some() { 5 } else { escape.chars().next().map_or(0, char::len_utf8) };
        rest = &escape[length..];
    }
    high
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn reason(text: &str) -> Reason {
        parse(text.as_bytes()).unwrap_err().reason
    }

    #[test]
    fn faults_have_a_reason() {
        assert_eq!(parse(b"{\"text\": \"\xff\"}").unwrap_err().reason, Reason::NotUtf8);
        assert_eq!(reason(r#"{"text": "a""#), Reason::BrokenJson);
        assert_eq!(reason(r#"{"text": NaN}"#), Reason::BrokenJson);
        assert_eq!(reason(r#"{"text": 1e999}"#), Reason::BrokenJson);
        assert_eq!(reason("{\"text\": \"a\0\"}"), Reason::BrokenJson);
        assert_eq!(reason(&"[".repeat(100_000)), Reason::BrokenJson);
        assert_eq!(reason("[1]"), Reason::NotAnObject);
        assert_eq!(reason(r#"{"a": 1, "b": 2, "a": 1}"#), Reason::DuplicateKey);
        assert_eq!(reason(r#"{"a": [{"b": 1, "b": 2}]}"#), Reason::DuplicateKey);
    }

    #[test]
    fn records_are_those_of_serde_json() {
        let text =
            r#"{"z": [1, -2, 3.5, 1e300, 18446744073709551615], "a": {"b": null, "c": [true, "\u0000 \ud83d\ude00"]}}"#;
        assert_eq!(Value::Object(parse(text.as_bytes()).unwrap()), serde_json::from_str::<Value>(text).unwrap());
        assert_eq!(parse(text.as_bytes()).unwrap().keys().collect::<Vec<_>>(), ["z", "a"]);
    }

    #[test]
    fn half_a_surrogate_pair_is_found() {
        assert_eq!(parse(br#"{"text": "\ud83d\ude00"}"#).unwrap()["text"], "😀");
        for text in [r"\ud83d", r"\ude00", r"\ud83dx\ude00", r"\ud83d\n\ude00", r"\ud83d\ud83d\ude00", r"\\\ud83d"] {
            assert_eq!(reason(&format!(r#"{{"text": "{text}"}}"#)), Reason::LoneSurrogate, "{text}");
        }
        assert_eq!(reason(r#"{"text": "\\ud83d"#), Reason::BrokenJson);
        assert_eq!(reason(r#"{"text": "\é"}"#), Reason::BrokenJson);
    }
}
