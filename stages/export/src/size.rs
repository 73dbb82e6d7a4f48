//! A number of bytes as people write it: `5GB`, `512MiB`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

const UNITS: [(&str, u64); 6] =
    [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("GB", 1_000_000_000), ("MB", 1_000_000), ("KB", 1_000)];

/// Bytes, and how they were written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Size {
    text: String,
    bytes: u64,
}

/// A text that is no size.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no size; write a whole number and GB, MB, KB, GiB, MiB or KiB, such as 5GB")]
pub struct InvalidSize(String);

impl Size {
    /// Bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Default for Size {
    fn default() -> Self {
        Self { text: "5GB".to_owned(), bytes: 5_000_000_000 }
    }
}

impl TryFrom<String> for Size {
    type Error = InvalidSize;

    fn try_from(text: String) -> Result<Self, InvalidSize> {
        let bytes = UNITS.iter().find_map(|(unit, factor)| {
            let count = text.strip_suffix(unit)?.trim_end();
            let digits = !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit());
            digits.then(|| count.parse::<u64>().ok()?.checked_mul(*factor)).flatten()
        });
        match bytes {
            Some(bytes) if bytes > 0 => Ok(Self { text, bytes }),
            _ => Err(InvalidSize(text)),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.text
    }
}

impl JsonSchema for Size {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+ *[KMG]i?B$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_transformers_reads_them() {
        let bytes = |text: &str| Size::try_from(text.to_owned()).ok().map(|size| size.bytes());
        let cases = [("5GB", Some(5_000_000_000)), ("512 MiB", Some(512 << 20)), ("1KB", Some(1000)), ("7", None)];
        for (text, expected) in cases.into_iter().chain([("0GB", None), ("-1GB", None), ("1.5GB", None), ("GB", None)])
        {
            assert_eq!(bytes(text), expected, "{text}");
        }
    }
}
