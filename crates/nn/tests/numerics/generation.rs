//! Answers token by token against one pass over all tokens, and against the same answer from other beginnings.

use pipe_nn::{
    Finish, GenerationOptions, Inference, InferenceOptions, LoraConfig, Precision, Sampling, Session, Voice,
    adapter::{SavedAdapter, save_adapter},
};
use tch::Tensor;

use crate::{
    fixtures::{Reference, device, folder, largest_difference, load, lora, options, pack},
    testing::random,
};

/// float32: sums in another order, nothing else.
const TOLERANCE: f64 = 2e-5;

const MODELS: [&str; 4] = ["model_tied", "model_untied", "bnb4_tied", "bnb4_untied"];

fn inference(model: &str, adapter: Option<&SavedAdapter>, unpacked: bool) -> Inference {
    let options = InferenceOptions { precision: Precision::Fp32, device: device(), unpacked, compare: true };
    Inference::load(&folder().join(model), adapter, &options).unwrap()
}

/// An adapter whose every value counts.
fn adapter(model: &str, modules_to_save: &[&str]) -> SavedAdapter {
    let lora = lora(modules_to_save);
    let mut model = load(model, &options(Precision::Fp32, lora.clone()));
    let tied = model.tied();
    for (seed, parameter) in model.parameters_mut().iter_mut().enumerate() {
        parameter.set_value(&(random(parameter.size(), seed as u64) * 0.05).to_kind(tch::Kind::Float)).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    save_adapter(folder.path(), model.parameters(), &lora, tied, None).unwrap();
    SavedAdapter::open(folder.path()).unwrap()
}

/// The logits of every position, from one pass of the model as training uses it.
fn expected(model: &str, adapter: Option<&SavedAdapter>) -> (Vec<u32>, Tensor) {
    let file = Reference::open(if model.ends_with("untied") {
        "forward_untied.safetensors"
    } else {
        "forward_tied.safetensors"
    });
    let lora = adapter.map_or_else(LoraConfig::default, |adapter| adapter.lora().clone());
    let mut loaded = load(model, &options(Precision::Fp32, lora));
    let tied = loaded.tied();
    if let Some(adapter) = adapter {
        adapter.load_into(loaded.parameters_mut(), tied).unwrap();
    }
    let row = file.sample();
    let logits = loaded.logits(&pack(std::slice::from_ref(&row), 0)).unwrap();
    (row.ids, logits)
}

/// Reads tokens in pieces of these lengths, the last of which is repeated, and compares the logits behind each piece.
fn compare(inference: &Inference, voice: Voice, (ids, expected): &(Vec<u32>, Tensor), pieces: &[usize], what: &str) {
    let mut session = Session::default();
    let mut largest = 0.0_f64;
    let mut lengths = pieces.iter().chain(std::iter::repeat(pieces.last().unwrap()));
    while session.tokens().len() < ids.len() {
        let begin = session.tokens().len();
        let end = (begin + lengths.next().unwrap()).min(ids.len());
        let logits = inference.logits(voice, &mut session, &ids[begin..end]).unwrap();
        largest = largest.max(largest_difference(&logits, &expected.narrow(0, end as i64 - 1, 1)));
    }
    println!("{what}, {pieces:?}: logits within {largest:.1e}");
    assert!(largest <= TOLERANCE, "{what}, {pieces:?}: {largest}");
}

#[test]
fn token_by_token_is_one_pass() {
    for model in MODELS {
        let reference = expected(model, None);
        for unpacked in [false, true] {
            let inference = inference(model, None, unpacked);
            for pieces in [&[1][..], &[5, 1], &[7, 3]] {
                compare(&inference, Voice::Tuned, &reference, pieces, &format!("{model}, unpacked {unpacked}"));
            }
        }
    }
}

#[test]
fn base_and_tuned_answer_from_one_load() {
    for model in MODELS {
        for modules_to_save in [&[][..], &["embed_tokens", "lm_head"]] {
            let adapter = adapter(model, modules_to_save);
            let (base, tuned) = (expected(model, None), expected(model, Some(&adapter)));
            assert!(largest_difference(&base.1, &tuned.1) > 0.01, "the adapter does nothing");
            for unpacked in [false, true] {
                let inference = inference(model, Some(&adapter), unpacked);
                let what = format!("{model}, unpacked {unpacked}, {modules_to_save:?}");
                compare(&inference, Voice::Base, &base, &[4, 1], &format!("base of {what}"));
                compare(&inference, Voice::Tuned, &tuned, &[4, 1], &format!("tuned {what}"));
            }
        }
    }
}

#[test]
fn a_conversation_goes_on_from_what_was_read() {
    let inference = inference("model_untied", None, true);
    let (ids, _) = expected("model_untied", None);
    let greedy = GenerationOptions { max_new_tokens: 6, ..GenerationOptions::default() };
    let answer = |session: &mut Session, prompt: &[u32]| {
        let mut generation = inference.generate(Voice::Tuned, session, prompt, &greedy).unwrap();
        let tokens: Vec<u32> = generation.by_ref().map(Result::unwrap).collect();
        assert_eq!(generation.finish(), Some(Finish::MaxNewTokens));
        (generation.kept_tokens(), tokens)
    };
    let mut session = Session::default();
    let (kept, first) = answer(&mut session, &ids[..8]);
    assert_eq!(kept, 0);
    assert_eq!(
        first,
        load("model_untied", &options(Precision::Fp32, LoraConfig::default())).generate(&ids[..8], 6, &[]).unwrap()
    );
    // The last token of an answer was not read.
    assert_eq!(session.tokens(), [&ids[..8], &first[..5]].concat());

    let longer = [&ids[..8], &first[..], &ids[8..12]].concat();
    let (kept, second) = answer(&mut session, &longer);
    assert_eq!((kept, &second), (13, &answer(&mut Session::default(), &longer).1));
    // Another ending, the same prompt again, and something else.
    let (kept, third) = answer(&mut session, &ids[..9]);
    assert_eq!((kept, &third), (8, &answer(&mut Session::default(), &ids[..9]).1));
    assert_eq!(answer(&mut session, &ids[..9]), (8, third));
    assert_eq!(answer(&mut session, &ids[3..9]).0, usize::from(ids[3] == ids[0]));
}

#[test]
fn a_seed_gives_the_same_answer_and_an_end_token_ends_it() {
    let inference = inference("model_tied", None, false);
    let (ids, _) = expected("model_tied", None);
    let answer = |seed, end_tokens: &[u32]| {
        let sampling = Sampling { temperature: 1.5, seed, ..Sampling::default() };
        let options = GenerationOptions { max_new_tokens: 20, end_tokens: end_tokens.to_vec(), sampling };
        let mut session = Session::default();
        let mut generation = inference.generate(Voice::Tuned, &mut session, &ids[..8], &options).unwrap();
        let tokens: Vec<u32> = generation.by_ref().map(Result::unwrap).collect();
        (tokens, generation.finish())
    };
    let (first, finish) = answer(1, &[]);
    assert_eq!((first.len(), finish), (20, Some(Finish::MaxNewTokens)));
    assert_eq!(answer(1, &[]).0, first);
    assert_ne!(answer(2, &[]).0, first);
    let until = first.iter().position(|token| *token == first[4]).unwrap();
    assert_eq!(answer(1, &[first[4]]), (first[..=until].to_vec(), Some(Finish::EndToken)));
}
