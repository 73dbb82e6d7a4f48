//! How text is cut before byte-pair encoding: the pre-tokenizers that llama.cpp knows by name.

use serde_json::{Value, json};

const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

/// The names that can be written, for errors.
pub(crate) const KNOWN: &str = "those of Qwen2 and Qwen3, Llama 3, SmolLM and GPT-2";

/// llama.cpp's name of the `pre_tokenizer` of a `tokenizer.json`, if it has one.
pub(crate) fn name(pre_tokenizer: &Value) -> Option<&'static str> {
    let steps = match pre_tokenizer.get("pretokenizers") {
        Some(Value::Array(steps)) => steps.as_slice(),
        _ => std::slice::from_ref(pre_tokenizer),
    };
    let kind = |step: &Value| step.get("type").and_then(Value::as_str).map(str::to_owned);
    let is = |step: &Value, field: &str, otherwise: bool| step.get(field).and_then(Value::as_bool).unwrap_or(otherwise);
    let plain_bytes = |step: &Value, regex: bool| {
        kind(step).as_deref() == Some("ByteLevel")
            && !is(step, "add_prefix_space", true)
            && is(step, "use_regex", true) == regex
    };
    match steps {
        [bytes] if plain_bytes(bytes, true) => Some("gpt-2"),
        [first, bytes] if kind(first).as_deref() == Some("Digits") => {
            (is(first, "individual_digits", false) && plain_bytes(bytes, true)).then_some("smollm")
        }
        [split, bytes] if kind(split).as_deref() == Some("Split") && plain_bytes(bytes, false) => {
            let isolated = split.get("behavior").and_then(Value::as_str) == Some("Isolated");
            let pattern = split.get("pattern")?.get("Regex")?.as_str()?;
            match pattern {
                _ if !isolated || is(split, "invert", false) => None,
                QWEN2 => Some("qwen2"),
                LLAMA3 => Some("llama-bpe"),
                _ => None,
            }
        }
        _ => None,
    }
}

/// The `pre_tokenizer` that llama.cpp's name stands for, and the `normalizer` of its models.
pub(crate) fn from_name(name: &str) -> Option<(Value, Value)> {
    let bytes = |regex: bool| json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": regex, "use_regex": regex });
    let split = |pattern: &str| {
        let split =
            json!({ "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false });
        json!({ "type": "Sequence", "pretokenizers": [split, bytes(false)] })
    };
    match name {
        "qwen2" => Some((split(QWEN2), json!({ "type": "NFC" }))),
        "llama-bpe" | "llama3" | "llama-v3" => Some((split(LLAMA3), Value::Null)),
        "smollm" => {
            let digits = json!({ "type": "Digits", "individual_digits": true });
            Some((json!({ "type": "Sequence", "pretokenizers": [digits, bytes(true)] }), Value::Null))
        }
        "gpt-2" | "gpt2" => Some((bytes(true), Value::Null)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_comes_back_from_what_it_stands_for() {
        for known in ["qwen2", "llama-bpe", "smollm", "gpt-2"] {
            let (pre_tokenizer, _) = from_name(known).unwrap_or_default();
            assert_eq!(name(&pre_tokenizer), Some(known));
        }
        assert_eq!(name(&json!({ "type": "Metaspace" })), None);
        assert_eq!(name(&json!({ "type": "ByteLevel", "add_prefix_space": true, "use_regex": true })), None);
    }
}
