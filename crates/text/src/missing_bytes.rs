//! Byte-level vocabularies that lack a token for some byte, such as SmolLM2's.
//!
//! The Python library leaves such a byte out of a text, or puts the unknown token in its place; this program's library
//! refuses the whole vocabulary. So the bytes get tokens behind all others, which are taken out again after encoding. One
//! difference is left: Python may merge what stands on both sides of a byte that it left out.

use serde_json::{Value, json};

/// The tokens that were put into a vocabulary, and what stands for them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MissingBytes {
    first: u32,
    unknown: Option<u32>,
}

impl MissingBytes {
    /// Completes the vocabulary of a `tokenizer.json`; `None` if nothing is missing. `vocab_size` is one more than its
    /// highest id.
    pub(crate) fn fill(json: &mut Value, vocab_size: usize) -> Option<Self> {
        let is_byte_level = |step: &Value| step.get("type").and_then(Value::as_str) == Some("ByteLevel");
        let pre = json.get("pre_tokenizer")?;
        let steps = pre.get("pretokenizers").and_then(Value::as_array);
        if !is_byte_level(pre) && !steps.is_some_and(|steps| steps.iter().any(is_byte_level)) {
            return None;
        }
        let first = u32::try_from(vocab_size).ok()?;
        let model = json.get_mut("model")?;
        let unknown = model.get("unk_token").and_then(Value::as_str).map(str::to_owned);
        let vocab = model.get_mut("vocab")?.as_object_mut()?;
        let unknown = unknown.and_then(|token| u32::try_from(vocab.get(&token)?.as_u64()?).ok());
        let missing: Vec<char> =
            letters().filter(|letter| !vocab.contains_key(letter.encode_utf8(&mut [0; 4]))).collect();
        if missing.is_empty() {
            return None;
        }
        for (id, letter) in (first..).zip(missing) {
            vocab.insert(letter.to_string(), json!(id));
        }
        Some(Self { first, unknown })
    }

    /// The ids as Python gives them.
    pub(crate) fn settle(&self, ids: Vec<u32>) -> Vec<u32> {
        let known = |id: u32| if id < self.first { Some(id) } else { self.unknown };
        ids.into_iter().filter_map(known).collect()
    }
}

/// The letters that stand for the bytes which UTF-8 has, by GPT-2's table: printable ones for themselves, the others
/// numbered from U+0100 on.
fn letters() -> impl Iterator<Item = char> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    let mut others = 0x100_u32;
    (0..=u8::MAX).filter_map(move |byte| {
        let letter = if printable(byte) {
            char::from(byte)
        } else {
            others += 1;
            char::from_u32(others - 1)?
        };
        (!matches!(byte, 0xC0 | 0xC1 | 0xF5..)).then_some(letter)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_byte_without_a_token_gets_one_that_is_taken_out_again() {
        let mut vocab: serde_json::Map<String, Value> =
            letters().zip(0..).map(|(letter, id)| (letter.to_string(), json!(id))).collect();
        assert_eq!(vocab.len(), 243);
        let file = |vocab: &serde_json::Map<String, Value>| json!({ "pre_tokenizer": { "type": "ByteLevel" }, "model": { "vocab": vocab, "unk_token": null } });
        assert!(MissingBytes::fill(&mut file(&vocab), 243).is_none());
        // Byte 4, as the fifth letter that stands for no printable byte.
        vocab.shift_remove("\u{104}");
        let mut json = file(&vocab);
        let missing = MissingBytes::fill(&mut json, 243);
        assert_eq!(json["model"]["vocab"]["\u{104}"], json!(243));
        assert_eq!(missing.map(|missing| missing.settle(vec![5, 243, 6])), Some(vec![5, 6]));
        let unknown = MissingBytes { first: 243, unknown: Some(0) };
        assert_eq!(unknown.settle(vec![5, 243]), [5, 0]);
    }
}
