//! Ids against those of Python's `tokenizers`.

use pipe_text::Tokenizer;

use crate::{fixture, qwen3};

#[test]
fn ids_are_those_of_python() {
    let tokenizer = Tokenizer::load(&qwen3()).unwrap();
    let cases = fixture("ids.json");
    for case in &cases {
        let text = case["text"].as_str().unwrap();
        let expected: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(text).unwrap(), expected, "{text:?}");
    }
    assert!(cases.len() > 60);
}

#[test]
fn the_tokens_of_qwen3_are_known() {
    let tokenizer = Tokenizer::load(&qwen3()).unwrap();
    assert_eq!(tokenizer.vocab_size(), 151_669);
    assert_eq!(tokenizer.id("<|im_end|>"), Some(151_645));
    assert_eq!(tokenizer.id("</think>"), Some(151_668));
    assert_eq!(tokenizer.id("nothing"), None);
    assert_eq!(tokenizer.eos(), Some(151_645));
    assert_eq!(tokenizer.end_ids(), [151_645]);
}

#[test]
fn text_comes_back() {
    let tokenizer = Tokenizer::load(&qwen3()).unwrap();
    let text = "<|im_start|>user\n你好 👋🏽, it's  me.<|im_end|>\n";
    let ids = tokenizer.encode(text).unwrap();
    assert_eq!(tokenizer.decode(&ids, false).unwrap(), text);
    assert_eq!(tokenizer.decode(&ids, true).unwrap(), "user\n你好 👋🏽, it's  me.\n");
    assert_eq!(tokenizer.decode(&[u32::MAX], false).unwrap(), "");
}
