//! Rows of every shape, their ids and labels.

use pipe_samples::IGNORED;
use serde_json::json;

use crate::{encode, model, run, run_inputs};

const CHAT: &str = r#"{"messages": [{"role": "user", "content": "Hi there"}, {"role": "assistant", "content": "Hello"},
    {"role": "user", "content": "Bye"}, {"role": "assistant", "content": "See you"}]}"#;

fn chat() -> String {
    CHAT.replace('\n', " ")
}

#[test]
fn messages_become_what_the_template_writes() {
    let text = "<|im_start|>user\nHi there<|im_end|>\n<|im_start|>assistant\nHello<|im_end|>\n\
                <|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\nSee you<|im_end|>\n";
    let outcome = run(&chat(), json!({}));
    assert_eq!(outcome.ids(), [encode(text)]);
    let samples = outcome.samples();
    let sample = samples.get(0).unwrap();
    assert!(sample.input_ids.iter().zip(sample.labels).all(|(id, label)| i64::from(*id) == i64::from(*label)));
    // The template closes turns itself: there is nothing for add_eos to add.
    assert_eq!(run(&chat(), json!({ "add_eos": true })).ids(), [encode(text)]);
}

#[test]
fn the_loss_may_look_at_the_assistant_only() {
    let outcome = run(&chat(), json!({ "loss_on": "assistant" }));
    let samples = outcome.samples();
    let sample = samples.get(0).unwrap();
    let trained: Vec<u32> = sample.labels.iter().filter_map(|label| u32::try_from(*label).ok()).collect();
    assert_eq!(trained, [encode("Hello<|im_end|>"), encode("See you<|im_end|>")].concat());
    for (id, label) in sample.input_ids.iter().zip(sample.labels) {
        assert!(*label == IGNORED || i64::from(*label) == i64::from(*id));
    }
    assert_eq!(outcome.figure("tokens_trained"), Some(&json!(trained.len())));
}

#[test]
fn an_instruction_is_a_conversation() {
    let rows = r#"{"instruction": "Add.", "input": "1, 2", "output": "3"}
{"instruction": "Add.\n1, 2", "input": "", "output": "3"}
{"messages": [{"role": "user", "content": "Add.\n1, 2"}, {"role": "assistant", "content": "3"}]}"#;
    let ids = run(rows, json!({})).ids();
    assert_eq!(ids, vec![ids[0].clone(); 3]);
}

#[test]
fn completions_end_if_asked_to() {
    let rows = r#"{"prompt": "The sky is", "completion": " blue."}"#;
    let outcome = run(rows, json!({}));
    assert_eq!(outcome.ids(), [encode("The sky is blue.")]);
    assert!(outcome.logs().iter().any(|log| log.contains("set add_eos")));

    let outcome = run(rows, json!({ "add_eos": true, "loss_on": "assistant" }));
    assert_eq!(outcome.ids(), [encode("The sky is blue.<|im_end|>")]);
    assert_eq!(outcome.logs(), [""; 0]);
    let samples = outcome.samples();
    let trained: Vec<i32> = samples.get(0).unwrap().labels.iter().copied().filter(|label| *label != IGNORED).collect();
    assert_eq!(trained.iter().map(|label| *label as u32).collect::<Vec<_>>(), encode(" blue.<|im_end|>"));
}

#[test]
fn text_is_taken_as_it_is() {
    let rows = "{\"text\": \"a  b\"}\n{\"text\": \"   \"}";
    assert_eq!(run(rows, json!({})).ids(), [encode("a  b"), encode("   ")]);
    assert_eq!(run(rows, json!({ "add_eos": true })).ids()[1], encode("   <|im_end|>"));
}

#[test]
fn ready_ids_pass_through() {
    let rows = r#"{"input_ids": [1, 2, 3]}
{"input_ids": [4, 5], "labels": [-100, 5], "other": 1}"#;
    let samples = run(rows, json!({})).samples();
    assert_eq!(samples.get(0).unwrap().labels, [1, 2, 3]);
    assert_eq!(samples.get(1).unwrap().labels, [-100, 5]);
    // They need a bound from the model, and no tokenizer.
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 6}"#).unwrap();
    let on = |rows: &str| run_inputs(folder.path(), &[&[("rows.jsonl", rows.as_bytes())]], json!({}), false);
    assert_eq!(on(rows).ids(), [vec![1, 2, 3], vec![4, 5]]);
    assert_eq!(on(r#"{"input_ids": [6]}"#).error(), "rows.jsonl:1: the id 6 is none of the model's 6");
    let label = on(r#"{"input_ids": [1], "labels": [-1]}"#).error();
    assert_eq!(label, "rows.jsonl:1: the label -1 is neither -100 nor an id of the model's 6");
    assert!(on(r#"{"text": "a"}"#).error().contains("needs a tokenizer (tokenizer.json)"));
}

#[test]
fn long_rows_are_cut() {
    let text = "word ".repeat(300);
    let rows = format!("{}\n{}", json!({ "text": text }), json!({ "text": "short" }));
    let outcome = run(&rows, json!({ "max_length": 7, "add_eos": true }));
    assert_eq!(outcome.ids()[0], encode(&text)[..7]);
    assert_eq!(outcome.figure("rows_truncated"), Some(&json!(1)));
    assert_eq!(outcome.samples().get(0).unwrap().labels.len(), 7);
}

#[test]
fn what_cannot_work_is_said() {
    assert!(run("", json!({})).error().contains("none of 0 rows gives a sample"));
    let untrained = r#"{"input_ids": [1, 2], "labels": [1, -100]}"#;
    assert!(run(untrained, json!({})).error().contains("all labels are -100"));

    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let on = |config| run_inputs(folder.path(), &[&[("rows.jsonl", chat().as_bytes())]], config, false);
    assert!(on(json!({})).error().contains("rows.jsonl:1: a row of this shape needs a chat template"));
    assert!(on(json!({ "add_eos": true })).error().contains("needs an eos_token"));
    // A tokenizer with more tokens than the model has embeddings.
    std::fs::write(folder.path().join("config.json"), r#"{"vocab_size": 100}"#).unwrap();
    let text = run_inputs(folder.path(), &[&[("rows.jsonl", b"{\"text\": \"words\"}")]], json!({}), false);
    assert!(text.error().contains("config.json says that the model knows 100 ids"), "{}", text.error());
}

#[test]
fn the_end_of_some_turn_is_trained() {
    let long = json!({ "messages": [{ "role": "user", "content": "a" }, { "role": "assistant", "content": "b ".repeat(99) }] });
    let cut = run(&long.to_string(), json!({ "loss_on": "assistant", "max_length": 40 }));
    assert!(cut.error().contains("the loss counts the end of no turn"), "{}", cut.error());
    // Where one row has an end, the others need none.
    let rows = format!("{long}\n{}", chat());
    assert_eq!(run(&rows, json!({ "loss_on": "assistant", "max_length": 40 })).ids().len(), 2);

    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(model().join("tokenizer.json"), folder.path().join("tokenizer.json")).unwrap();
    let with = |template: &str, config| {
        std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
        run_inputs(folder.path(), &[&[("rows.jsonl", chat().as_bytes())]], config, false)
    };
    let open = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
    let error = with(open, json!({ "loss_on": "assistant" })).error();
    assert!(error.contains("never learn where to stop"), "{error}");
    assert_eq!(with(open, json!({})).ids().len(), 1);
    let silent =
        "{% for m in messages %}{{ m.content if m.role == 'user' or m.content == 'assistantcontent' }}{% endfor %}";
    let error = with(silent, json!({ "loss_on": "assistant" })).error();
    assert!(error.contains("writes nothing of what the assistant says"), "{error}");
}

#[test]
fn the_template_may_be_told_more() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["tokenizer.json", "tokenizer_config.json"] {
        std::fs::copy(model().join(file), folder.path().join(file)).unwrap();
    }
    // As Qwen3 does: the last turn has a thinking block, which is the generation prompt's where thinking is off.
    let template = "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if loop.last %}<think>\n\n</think>\n\n{% endif %}\
                    {{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n\
                    {% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}";
    std::fs::write(folder.path().join("chat_template.jinja"), template).unwrap();
    let trained = |kwargs: serde_json::Value| {
        let config = json!({ "loss_on": "assistant", "chat_template_kwargs": kwargs });
        let samples = run_inputs(folder.path(), &[&[("rows.jsonl", chat().as_bytes())]], config, false).samples();
        let labels = samples.get(0).unwrap().labels.to_vec();
        labels.into_iter().filter(|label| *label != IGNORED).map(|label| label as u32).collect::<Vec<_>>()
    };
    let thinking = encode("<think>\n\n</think>\n\n");
    let (first, last) = (encode("Hello<|im_end|>"), encode("See you<|im_end|>"));
    assert_eq!(trained(json!({})), [first.clone(), thinking, last.clone()].concat());
    assert_eq!(trained(json!({ "enable_thinking": false })), [first, last].concat());
}
