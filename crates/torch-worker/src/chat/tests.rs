//! What the process says, with the small models that the tests of `pipe-nn` use and the quickstart's tokenizer.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    fs,
    io::Cursor,
    path::{Path, PathBuf},
    sync::mpsc,
};

use pipe_chat::{Device, Done, Fault, Finish, Load, Loaded, Order, Question, Reply, Sampling, Voice};
use serde_json::{Value, json};

use super::{Cancelled, hear, serve};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A model folder: random weights that know the quickstart's tokens.
fn model() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"] {
        fs::copy(root().join("examples/quickstart/tokenizer").join(file), folder.path().join(file)).unwrap();
    }
    let shape = json!({
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "vocab_size": 4096, "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
        "head_dim": 16, "rms_norm_eps": 1e-6, "rope_theta": 10000.0, "max_position_embeddings": 64,
        "tie_word_embeddings": true, "hidden_act": "silu", "attention_bias": false, "torch_dtype": "float32",
    });
    fs::write(folder.path().join("config.json"), shape.to_string()).unwrap();
    let config = pipe_hf::ModelConfig::open(folder.path()).unwrap();
    let mut word = 1_u64;
    let mut random = move || {
        word = word.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (word >> 40) as f32 / (1 << 24) as f32 - 0.5
    };
    let tensors: Vec<(pipe_hf::TensorSpec, Vec<u8>)> = config
        .parameters()
        .into_iter()
        .map(|parameter| {
            let count = parameter.shape.iter().product();
            let norm = parameter.role == pipe_hf::Role::Norm;
            let values = (0..count).map(|_| if norm { 1.0 } else { random() });
            let bytes = values.flat_map(f32::to_le_bytes).collect();
            (pipe_hf::TensorSpec::new(parameter.name, pipe_hf::Dtype::F32, parameter.shape), bytes)
        })
        .collect();
    let tensors: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    pipe_hf::write_safetensors(&folder.path().join("model.safetensors"), &tensors).unwrap();
    folder
}

fn load(folder: &Path) -> Load {
    Load { base: folder.to_owned(), device: Some(Device::Cpu), threads: 1, ..Load::default() }
}

fn question(id: u64, content: &str) -> Question {
    let messages = vec![json!({ "role": "user", "content": content })];
    Question { id, messages, max_new_tokens: 8, ..Question::default() }
}

/// Everything that is said to these orders.
fn said(orders: Vec<Order>) -> Vec<Reply> {
    let (send, receive) = mpsc::channel();
    orders.into_iter().for_each(|order| send.send(Ok(order)).unwrap());
    drop(send);
    let mut replies = Vec::new();
    let _ = serve(&receive, &Cancelled::default(), &mut |reply| {
        replies.push(reply.clone());
        Ok(())
    });
    replies
}

/// The text of an answer, and how it ended.
fn answer(replies: &[Reply], id: u64) -> (String, Done) {
    let of = |reply: &&Reply| reply.id() == Some(id);
    let text = replies.iter().filter(of).filter_map(|reply| match reply {
        Reply::Piece { text, .. } => Some(text.as_str()),
        _ => None,
    });
    let done = replies.iter().filter(of).find_map(|reply| match reply {
        Reply::Done(done) => Some(done.clone()),
        _ => None,
    });
    (text.collect(), done.unwrap_or_else(|| panic!("{replies:?}")))
}

#[test]
fn questions_are_answered_in_their_order() {
    let folder = model();
    let sampled = Sampling { temperature: Some(1.0), seed: Some(3), ..Sampling::default() };
    let orders = vec![
        Order::Load(load(folder.path())),
        Order::Ask(question(1, "三月里扇扇子？")),
        Order::Ask(question(2, "三月里扇扇子？")),
        Order::Ask(Question { sampling: sampled, ..question(3, "Hi") }),
        Order::Ask(Question { sampling: sampled, fresh: true, ..question(4, "Hi") }),
        Order::Ask(Question { voice: Voice::Base, ..question(5, "三月里扇扇子？") }),
    ];
    let replies = said(orders);
    let Reply::Loaded(Loaded { device: Device::Cpu, chat_template: true, context_tokens: 64, unpacked: true, .. }) =
        &replies[0]
    else {
        panic!("{:?}", replies[0])
    };
    let (first, done) = answer(&replies, 1);
    assert_eq!((done.finish, done.completion_tokens), (Finish::Length, 8));
    assert!(!first.is_empty());
    assert_eq!(answer(&replies, 2).0, first);
    assert_eq!(answer(&replies, 5).0, first, "there is no adapter");
    assert_eq!(answer(&replies, 3).0, answer(&replies, 4).0);
    let kept = |wanted: u64| {
        replies.iter().find_map(|reply| match reply {
            Reply::Begun { id, kept_tokens, prompt_tokens } if *id == wanted => Some((*kept_tokens, *prompt_tokens)),
            _ => None,
        })
    };
    assert_eq!(kept(1), Some((0, done.prompt_tokens)));
    assert_eq!(kept(2), Some((done.prompt_tokens - 1, done.prompt_tokens)));
    assert_eq!(kept(4).map(|(kept, _)| kept), Some(0));
}

#[test]
fn a_stop_string_ends_an_answer_and_is_no_part_of_it() {
    let folder = model();
    let orders = |stop: &str| {
        let stop = vec![stop.to_owned()];
        vec![Order::Load(load(folder.path())), Order::Ask(Question { stop, ..question(1, "Hi") })]
    };
    let (whole, _) = answer(&said(orders("")), 1);
    let (middle, _) = whole.char_indices().nth(whole.chars().count() / 2).unwrap();
    let stop: String = whole[middle..].chars().take(2).collect();
    let (text, done) = answer(&said(orders(&stop)), 1);
    assert_eq!((text.as_str(), done.finish), (&whole[..whole.find(&stop).unwrap()], Finish::Stop));
}

#[test]
fn what_is_wrong_with_a_question_is_said_and_the_next_one_answered() {
    let folder = model();
    let orders = vec![
        Order::Load(load(folder.path())),
        Order::Ask(question(1, &"long ".repeat(100))),
        Order::Ask(Question { sampling: Sampling { top_p: Some(2.0), ..Sampling::default() }, ..question(2, "Hi") }),
        Order::Ask(Question { max_new_tokens: 1000, ..question(3, "Hi") }),
    ];
    let replies = said(orders);
    let failed = |wanted: u64| {
        replies.iter().find_map(|reply| match reply {
            Reply::Failed { id, fault, message } if *id == wanted => Some((*fault, message.as_str())),
            _ => None,
        })
    };
    let (fault, message) = failed(1).unwrap();
    assert!(fault == Fault::Length && message.ends_with("and the model reads 64 with its answer"), "{message}");
    assert_eq!(failed(2), Some((Fault::Question, "top_p must be above 0 and at most 1, it is 2")));
    // As many tokens as the model reads.
    let (_, done) = answer(&replies, 3);
    assert_eq!((done.finish, done.prompt_tokens + done.completion_tokens), (Finish::Length, 64));
}

#[test]
fn what_cannot_be_loaded_is_refused() {
    let folder = model();
    let refused = |change: &dyn Fn(&mut Load)| {
        let mut load = load(folder.path());
        change(&mut load);
        match &said(vec![Order::Load(load)])[..] {
            [Reply::Refused { message, .. }] => message.clone(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refused(&|load| load.adapter = Some("/nowhere".into())).contains("/nowhere"));
    assert!(refused(&|load| load.base = "/nowhere".into()).contains("/nowhere"));
    fs::remove_file(folder.path().join("tokenizer.json")).unwrap();
    assert!(refused(&|_| ()).contains("tokenizer.json"));
}

#[test]
fn a_cancelled_question_has_an_end() {
    let folder = model();
    let cancelled = Cancelled::default();
    let (send, receive) = mpsc::channel();
    let line = |order: &Order| serde_json::to_string(order).unwrap() + "\n";
    let long = Question { max_new_tokens: 50, ..question(1, "Hi") };
    let orders =
        [Order::Load(load(folder.path())), Order::Ask(long), Order::Ask(question(2, "Hi")), Order::Cancel { id: 2 }];
    hear(Cursor::new(orders.iter().map(line).collect::<String>()), &cancelled, &send);
    drop(send);
    let mut replies: Vec<Reply> = Vec::new();
    let _ = serve(&receive, &cancelled, &mut |reply| {
        // Somebody who has heard enough of the first answer.
        if matches!(reply, Reply::Piece { id: 1, .. }) {
            cancelled.add(1);
        }
        replies.push(reply.clone());
        Ok(())
    });
    let (_, first) = answer(&replies, 1);
    assert!(first.finish == Finish::Cancelled && first.completion_tokens < 50, "{first:?}");
    let (text, second) = answer(&replies, 2);
    assert_eq!((text.as_str(), second.finish, second.completion_tokens), ("", Finish::Cancelled, 0));
}

#[test]
fn settings_of_the_model_hold_where_a_question_says_nothing() {
    let folder = model();
    let settings: Value = json!({ "do_sample": true, "temperature": 0.5, "top_k": 1 });
    let greedy = answer(&said(vec![Order::Load(load(folder.path())), Order::Ask(question(1, "Hi"))]), 1).0;
    fs::write(folder.path().join("generation_config.json"), settings.to_string()).unwrap();
    // The one most likely token is the greedy one.
    assert_eq!(answer(&said(vec![Order::Load(load(folder.path())), Order::Ask(question(1, "Hi"))]), 1).0, greedy);
}
