//! The key: the name of all that goes into a stage.

use std::{collections::BTreeMap, fmt, str::FromStr};

use pipe_stage::Digest;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::FileIdentity;

/// Raised whenever the encoding below changes, which makes every key a new one.
pub const KEY_SCHEMA: u64 = 3;

/// The digest of an [`Identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Key(Digest);

/// All that decides a stage's output, and nothing else: no names of stages, no paths, no times, no device.
///
/// It stands in the action record as it is, so that a plan can tell what differs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Identity {
    /// The kind.
    pub kind: String,
    /// The kind's version.
    pub version: u32,
    /// The resolved configuration, without the fields that only guide the execution and without those that name the
    /// user's files.
    pub config: Value,
    /// The user's files by the field that names them.
    pub files: BTreeMap<String, FileIdentity>,
    /// What the names of things outside of this machine stand for, by the field that holds them.
    pub pins: BTreeMap<String, String>,
    /// The declared environment variables with the digests of their values, which may be secrets; `None` if not set.
    pub environment: BTreeMap<String, Option<Digest>>,
    /// The artifacts of each input, in the order of the pipeline.
    pub inputs: BTreeMap<String, Vec<Digest>>,
}

impl Identity {
    /// The key.
    pub fn key(&self) -> Key {
        let mut encoder = Encoder(blake3::Hasher::new());
        encoder.text("pipe key");
        encoder.unsigned(KEY_SCHEMA);
        encoder.text(&self.kind);
        encoder.unsigned(self.version.into());
        encoder.json(&self.config);
        encoder.map(self.files.len());
        for (field, file) in &self.files {
            encoder.text(field);
            encoder.text(&file.name);
            encoder.boolean(file.folder);
            encoder.digest(&file.digest);
        }
        encoder.map(self.pins.len());
        for (field, pin) in &self.pins {
            encoder.text(field);
            encoder.text(pin);
        }
        encoder.map(self.environment.len());
        for (name, value) in &self.environment {
            encoder.text(name);
            match value {
                Some(value) => encoder.digest(value),
                None => encoder.json(&Value::Null),
            }
        }
        encoder.map(self.inputs.len());
        for (port, artifacts) in &self.inputs {
            encoder.text(port);
            encoder.list(artifacts.len());
            artifacts.iter().for_each(|artifact| encoder.digest(artifact));
        }
        Key(encoder.0.finalize().into())
    }
}

impl Key {
    pub(super) fn digest(&self) -> &Digest {
        &self.0
    }

    /// The first twelve digits: enough for a person.
    pub fn short(&self) -> String {
        self.0.short()
    }
}

impl From<Digest> for Key {
    fn from(digest: Digest) -> Self {
        Self(digest)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Key {
    type Err = <Digest as FromStr>::Err;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

/// Writes values so that different values never give the same bytes: each begins with its type, and with its length
/// where that varies.
struct Encoder(blake3::Hasher);

impl Encoder {
    fn put(&mut self, tag: u8, bytes: &[u8]) {
        self.0.update(&[tag]);
        self.0.update(bytes);
    }

    fn boolean(&mut self, value: bool) {
        self.put(b'b', &[value.into()]);
    }

    fn unsigned(&mut self, value: u64) {
        self.put(b'u', &value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.put(b't', &(text.len() as u64).to_le_bytes());
        self.0.update(text.as_bytes());
    }

    fn digest(&mut self, digest: &Digest) {
        self.put(b'd', digest.as_bytes());
    }

    fn list(&mut self, length: usize) {
        self.put(b'l', &(length as u64).to_le_bytes());
    }

    fn map(&mut self, length: usize) {
        self.put(b'm', &(length as u64).to_le_bytes());
    }

    fn json(&mut self, value: &Value) {
        match value {
            Value::Null => self.put(b'n', &[]),
            Value::Bool(value) => self.boolean(*value),
            Value::Number(number) => self.number(number),
            Value::String(text) => self.text(text),
            Value::Array(items) => {
                self.list(items.len());
                items.iter().for_each(|item| self.json(item));
            }
            Value::Object(fields) => {
                let sorted: BTreeMap<&String, &Value> = fields.iter().collect();
                self.map(sorted.len());
                for (name, value) in sorted {
                    self.text(name);
                    self.json(value);
                }
            }
        }
    }

    /// Floats by their bits, with one zero. A whole number and a float are of different types: what a field is, its
    /// kind decides, not how the user wrote it.
    fn number(&mut self, number: &serde_json::Number) {
        if let Some(value) = number.as_u64() {
            self.unsigned(value);
        } else if let Some(value) = number.as_i64() {
            self.put(b'i', &value.to_le_bytes());
        } else {
            let value = number.as_f64().unwrap_or(f64::NAN);
            let value = if value == 0.0 { 0.0 } else { value };
            self.put(b'f', &value.to_bits().to_le_bytes());
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
