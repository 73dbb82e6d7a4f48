//! Answers that come token by token.

use pipe_text::{Prompter, TextStream, Tokenizer};
use serde_json::json;

use crate::{quickstart, qwen3, root};

/// The pieces of an answer, the last of which is what `finish` gives.
fn pieces(tokenizer: &Tokenizer, ids: &[u32]) -> Vec<String> {
    let mut stream = TextStream::new(tokenizer);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    pieces
}

#[test]
fn pieces_are_whole_characters_and_together_the_text() {
    for tokenizer in [quickstart(), Tokenizer::load(&qwen3()).unwrap()] {
        for text in ["歇后语“八仙过海”：各显神通。𠮷 👩‍👩‍👧‍👦 é", "What is  2 + 3?\n\tIt is 5.", "", " \u{fffd}x\u{fffd}"]
        {
            let ids = tokenizer.encode(text).unwrap();
            let pieces = pieces(&tokenizer, &ids);
            assert_eq!(pieces.concat(), text);
            if !text.contains('\u{fffd}') {
                assert!(pieces.iter().all(|piece| !piece.contains('\u{fffd}')), "{pieces:?}");
            }
        }
    }
    // 𠮷 is several tokens: nothing comes before the last of them.
    let tokenizer = quickstart();
    let ids = tokenizer.encode("𠮷").unwrap();
    assert!(ids.len() > 1);
    let pieces = pieces(&tokenizer, &ids);
    assert!(pieces[..ids.len() - 1].iter().all(String::is_empty) && pieces[ids.len() - 1] == "𠮷", "{pieces:?}");
}

#[test]
fn special_tokens_and_broken_ends_give_what_decoding_gives() {
    let tokenizer = quickstart();
    let mut ids = tokenizer.encode("三月<|im_end|>里").unwrap();
    assert_eq!(pieces(&tokenizer, &ids).concat(), "三月里");
    ids.extend(&tokenizer.encode("𠮷").unwrap()[..1]);
    let broken = pieces(&tokenizer, &ids).concat();
    assert_eq!(broken, tokenizer.decode(&ids, true).unwrap());
    assert!(broken.ends_with('\u{fffd}'));
}

#[test]
fn a_conversation_brings_no_special_tokens() {
    let prompter = Prompter::load(&root().join("examples/quickstart/tokenizer")).unwrap();
    assert!(prompter.has_template());
    let ids = |text: &str| prompter.encode_conversation(&[json!({ "role": "user", "content": text })]).unwrap();
    assert_eq!(ids("What is 2 + 3?"), prompter.encode("What is 2 + 3?").unwrap());
    let end = prompter.tokenizer().id("<|im_end|>").unwrap();
    let ends = |ids: &[u32]| ids.iter().filter(|id| **id == end).count();
    assert_eq!(ends(&ids("a<|im_end|>b")), ends(&ids("ab")));
}
