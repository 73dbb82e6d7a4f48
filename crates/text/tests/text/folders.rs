//! Where tokenizers and templates are found, and what is said of broken ones.

use std::{fs, path::Path};

use pipe_text::{ChatTemplate, Conversation, Error, Prompter, Tokenizer};

use crate::{root, user};

fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let tokenizer = root().join("examples/quickstart/tokenizer/tokenizer.json");
    fs::copy(tokenizer, folder.path().join("tokenizer.json")).unwrap();
    for (name, text) in files {
        fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn rendered(folder: &Path) -> String {
    let messages = [user("a")];
    let conversation = Conversation { messages: &messages, tools: None, add_generation_prompt: false };
    ChatTemplate::load(folder).unwrap().unwrap().render(&conversation).unwrap()
}

#[test]
fn end_tokens_come_from_three_files() {
    let ends = |files: &[(&str, &str)]| {
        let tokenizer = Tokenizer::load(folder(files).path()).unwrap();
        (tokenizer.eos(), tokenizer.end_ids().to_vec())
    };
    let token = ("tokenizer_config.json", r#"{"eos_token": {"content": "<|im_end|>"}}"#);
    let generation = ("generation_config.json", r#"{"eos_token_id": [4093, 4094]}"#);
    let config = ("config.json", r#"{"eos_token_id": 4093}"#);
    assert_eq!(ends(&[]), (None, vec![]));
    assert_eq!(ends(&[config]), (Some(4093), vec![4093]));
    assert_eq!(ends(&[config, generation]), (Some(4093), vec![4093, 4094]));
    assert_eq!(ends(&[config, generation, token]), (Some(4095), vec![4093, 4094, 4095]));
}

#[test]
fn templates_come_from_two_files() {
    let named = r#"{"chat_template": [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]}"#;
    let text = r#"{"chat_template": "c {{ eos_token }}", "eos_token": "E"}"#;
    assert_eq!(rendered(folder(&[("tokenizer_config.json", named)]).path()), "d");
    assert_eq!(rendered(folder(&[("tokenizer_config.json", text)]).path()), "c E");
    assert_eq!(rendered(folder(&[("tokenizer_config.json", text), ("chat_template.jinja", "j")]).path()), "j");
    assert!(ChatTemplate::load(folder(&[]).path()).unwrap().is_none());
}

#[test]
fn broken_files_are_named() {
    let chain = |error: Error| {
        let source = std::error::Error::source(&error).map(ToString::to_string).unwrap_or_default();
        format!("{error}: {source}")
    };
    let template = |files: &[(&str, &str)]| chain(ChatTemplate::load(folder(files).path()).map(|_| ()).unwrap_err());
    assert!(template(&[("chat_template.jinja", "{% if %}")]).contains("cannot parse the chat template"));
    assert!(template(&[("tokenizer_config.json", "{")]).contains("tokenizer_config.json is not valid JSON: EOF"));
    assert!(template(&[("tokenizer_config.json", r#"{"chat_template": []}"#)]).contains("chat_template must be"));

    let tokenizer =
        |text: &str| chain(Tokenizer::load(folder(&[("tokenizer.json", text)]).path()).map(|_| ()).unwrap_err());
    assert!(tokenizer("{}").contains("tokenizer.json: the config has no `model`"), "{}", tokenizer("{}"));
    assert!(tokenizer("[]").contains("cannot use"));
    let empty = tempfile::tempdir().unwrap();
    assert!(chain(Tokenizer::load(empty.path()).map(|_| ()).unwrap_err()).contains("has no tokenizer.json"));
}

#[test]
fn a_question_without_a_template_is_taken_as_it_is() {
    let plain = folder(&[("tokenizer_config.json", r#"{"eos_token": "<|im_end|>"}"#)]);
    let prompter = Prompter::load(plain.path()).unwrap();
    assert_eq!(prompter.decode(&prompter.encode("hi<|im_end|>").unwrap()).unwrap(), "hi");
    assert_eq!(prompter.end_ids(), [4095]);
    let chat = folder(&[("chat_template.jinja", "Q: {{ messages[0].content }}")]);
    let prompter = Prompter::load(chat.path()).unwrap();
    assert_eq!(prompter.decode(&prompter.encode("hi").unwrap()).unwrap(), "Q: hi");
}
