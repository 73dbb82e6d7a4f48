//! Renders against Jinja2's.

use pipe_text::{ChatTemplate, Conversation, Error};
use serde_json::Value;

use crate::{fixture, qwen3, template, user};

#[test]
fn renders_are_those_of_jinja2() {
    let qwen3 = ChatTemplate::load(&qwen3()).unwrap().unwrap();
    let mut wrong = Vec::new();
    let cases = fixture("templates.json");
    for case in &cases {
        let own = case.get("template").and_then(Value::as_str).map(template);
        let conversation = Conversation {
            messages: case["messages"].as_array().unwrap(),
            tools: case.get("tools").filter(|tools| !tools.is_null()),
            add_generation_prompt: case["add_generation_prompt"] == true,
        };
        let rendered = own.as_ref().unwrap_or(&qwen3).render(&conversation);
        match (case.get("text").and_then(Value::as_str), rendered) {
            (Some(expected), Ok(text)) if text == expected => {}
            (None, Err(Error::Render { .. })) => {}
            (expected, rendered) => wrong.push(format!("{}:\n  {expected:?}\n  {rendered:?}", case["name"])),
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

#[test]
fn a_template_may_refuse() {
    let refusal = |source: &str| {
        let messages = [user("a")];
        let conversation = Conversation { messages: &messages, tools: None, add_generation_prompt: false };
        match template(source).render(&conversation) {
            Err(Error::Render { source }) => source.to_string(),
            other => panic!("{other:?}"),
        }
    };
    assert!(refusal("{{ raise_exception('only two turns') }}").contains("only two turns"));
    assert!(refusal("{{ strftime_now('%Y') }}").contains("today's date"));
}

#[test]
fn a_prompt_is_open_for_the_answer() {
    let template = ChatTemplate::load(&qwen3()).unwrap().unwrap();
    let expected = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
    assert_eq!(template.prompt("hi").unwrap(), expected);
}

#[test]
fn line_ends_lists_and_none_are_what_jinja2_makes_of_them() {
    let messages = [serde_json::json!({ "role": "user", "content": ["\u{feff}"] })];
    let conversation = Conversation { messages: &messages, tools: None, add_generation_prompt: false };
    let render = |source: &str| template(source).render(&conversation).unwrap();
    assert_eq!(render("a\r\nb\rc\n\n"), "a\nb\nc\n");
    assert_eq!(
        render("{{ messages[0].content | trim }}|{{ ' x\u{1f}' | trim }}|{{ '-x-' | trim('-') }}"),
        "['\\ufeff']|x|x"
    );
    let iterable = "{{ tools is iterable }} {{ messages is iterable }} {{ 'a' is iterable }} {{ 1 is iterable }}";
    assert_eq!(render(iterable), "False True True False");
}
