//! `pipe chat`: with a model that was trained a little, and with a process that says what a test wants to hear.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
};

use serde_json::Value;

use super::{Project, Ran};

/// Stands for `pipe-torch`: answers with the question backwards, word by word, and writes down what it was told. A
/// question with `wait` is answered with one word, and then no more until it is cancelled.
const FAKE: &str = r#"#!/usr/bin/env python3
import json, os, sys
def say(**reply): print(json.dumps(reply), flush=True)
log = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "told.jsonl"), "a")
for line in sys.stdin:
    log.write(line); log.flush()
    order = json.loads(line)
    if order["order"] == "load":
        print("chatter of a library", flush=True)
        say(reply="loaded", device="cpu", computes_in="float32", unpacked=True, chat_template=True,
            context_tokens=64, note=None, seconds=0.1)
    elif order["order"] == "cancel":
        say(reply="done", id=order["id"], finish="cancelled", prompt_tokens=1, completion_tokens=1,
            prompt_seconds=0.1, completion_seconds=0.1)
    else:
        id, text = order["id"], order["messages"][-1]["content"]
        if "long" in text:
            say(reply="failed", id=id, fault="length", message="the conversation is too long")
            continue
        if "die" in text:
            print("RuntimeError: no memory", file=sys.stderr, flush=True)
            sys.exit(1)
        say(reply="begun", id=id, prompt_tokens=3, kept_tokens=0)
        words = text.split(" ")[::-1]
        if "wait" in text:
            say(reply="piece", id=id, text="waiting")
            continue
        if order["voice"] == "base":
            words = ["base:"] + words
        for n, word in enumerate(words):
            say(reply="piece", id=id, text=(" " if n else "") + word)
        say(reply="done", id=id, finish="stop", prompt_tokens=3, completion_tokens=len(words),
            prompt_seconds=0.1, completion_seconds=0.5)
"#;

/// A project with a model folder, and the fake beside it.
pub(super) fn faked() -> Project {
    let project = Project::new();
    let fake = project.path("pipe-torch");
    std::fs::write(&fake, FAKE).unwrap();
    std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["model", "adapter"] {
        std::fs::create_dir(project.path(folder)).unwrap();
    }
    std::fs::write(project.path("model/config.json"), "{}").unwrap();
    std::fs::write(project.path("adapter/adapter_config.json"), "{}").unwrap();
    project
}

/// `pipe` with the fake.
pub(super) fn command(project: &Project, arguments: &[&str]) -> Command {
    let mut command = project.command(arguments);
    command.env("PIPE_TORCH", project.path("pipe-torch")).env("PIPE_GPU_LOCKS", project.path("gpus"));
    command
}

/// What the fake was told.
pub(super) fn told(project: &Project) -> Vec<Value> {
    let text = std::fs::read_to_string(project.path("told.jsonl")).unwrap_or_default();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn ask(project: &Project, arguments: &[&str], input: &str) -> Ran {
    let mut child = command(project, &[&["chat"], arguments].concat())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap().into()
}

#[test]
fn one_question_has_one_answer() {
    let project = faked();
    let ran = ask(&project, &["model", "--prompt", "一 二 three"], "");
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "three 二 一\n", ""));
    // What comes through a pipe is one question, whatever lines it has.
    let arguments =
        ["model", "--system", "Be brief.", "--temperature", "0.7", "--top-k", "5", "--seed", "9", "--stop", "x"];
    let ran = ask(&project, &arguments, "a b\nc\n");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "b\nc a\n"), "{}", ran.stderr);
    let asked = told(&project).pop().unwrap();
    assert_eq!(asked["messages"][0]["content"], "Be brief.");
    assert_eq!((&asked["sampling"]["temperature"], &asked["sampling"]["top_k"]), (&0.7.into(), &5.into()));
    assert_eq!((&asked["sampling"]["top_p"], &asked["stop"][0]), (&Value::Null, &"x".into()));
    assert_eq!((&asked["sampling"]["seed"], &asked["max_new_tokens"]), (&9.into(), &512.into()));

    let ran = ask(&project, &["model", "--prompt", "a b", "--format", "json"], "");
    let answer: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert_eq!((&answer["answer"], &answer["finish"]), (&"b a".into(), &"stop".into()));
    assert_eq!((&answer["completion_tokens"], &answer["tokens_per_second"]), (&2.into(), &2.0.into()));
}

#[test]
fn base_and_tuned_stand_one_below_the_other_where_there_is_no_terminal() {
    let project = faked();
    let ran = ask(&project, &["model", "--adapter", "adapter", "--compare", "--prompt", "a b"], "");
    assert_eq!((ran.code, ran.stdout.as_str()), (0, "base:\nbase: b a\n\ntuned:\nb a\n"), "{}", ran.stderr);
    let load = &told(&project)[0];
    assert_eq!((&load["order"], &load["compare"]), (&"load".into(), &true.into()));
    assert!(load["adapter"].as_str().unwrap().ends_with("/adapter"), "{load}");
    let alone = ask(&project, &["model", "--compare", "--prompt", "a"], "");
    assert!(alone.code == 2 && alone.stderr.contains("wants a model with an adapter"), "{}", alone.stderr);
}

#[test]
fn what_goes_wrong_is_said_with_a_way_out() {
    let project = faked();
    let said = |arguments: &[&str], input: &str| {
        let ran = ask(&project, arguments, input);
        (ran.code, ran.stderr)
    };
    let (code, text) = said(&["model", "--prompt", "long"], "");
    assert!(code == 2 && text.contains("too long") && text.contains("shorten it"), "{text}");
    let (code, text) = said(&["model", "--prompt", "die"], "");
    assert!(code == 3 && text.contains("`pipe-torch` has ended: RuntimeError: no memory"), "{text}");
    let (code, text) = said(&["model"], " \n");
    assert!(code == 2 && text.contains("the question is empty"), "{text}");
    let (code, text) = said(&["./nowhere", "--prompt", "a"], "");
    assert!(code == 2 && text.contains("`./nowhere` is no model folder"), "{text}");
    let (code, text) = said(&["./adapter", "--prompt", "a"], "");
    assert!(code == 2 && text.contains("write its base, and `--adapter ./adapter`"), "{text}");
    let (code, text) = said(&["model", "--adapter", "model", "--prompt", "a"], "");
    assert!(code == 2 && text.contains("`model` is no adapter folder"), "{text}");
    let (code, text) = said(&["nowhere", "--prompt", "a"], "");
    assert!(code == 2 && text.contains("no run is recorded"), "{text}");
    let (code, text) = said(&["model", "--chat-template-kwargs", "[]", "--prompt", "a"], "");
    assert!(code == 2 && text.contains("write a JSON object"), "{text}");
    let mut missing = project.command(&["chat", "model", "--prompt", "a"]);
    let missing: Ran = missing.env("PIPE_TORCH", "/nonexistent").output().unwrap().into();
    assert!(missing.code == 3 && missing.stderr.contains("make build"), "{}", missing.stderr);
}

#[test]
fn ctrl_c_stops_an_answer_and_what_has_come_is_there() {
    let project = faked();
    let child = command(&project, &["chat", "model", "--prompt", "wait"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    while told(&project).len() < 2 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let ran: Ran = child.wait_with_output().unwrap().into();
    assert_eq!((ran.code, ran.stdout.as_str()), (1, "waiting\n"), "{}", ran.stderr);
    assert_eq!(told(&project).pop().unwrap()["order"], "cancel");
}

/// Needs `pipe-torch` beside `pipe`, as `make test` builds it.
#[test]
fn a_stage_that_trains_answers_on_its_base() {
    let project = Project::new();
    let tokenizer = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/tokenizer");
    std::fs::create_dir(project.path("rows")).unwrap();
    let row = r#"{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "八仙过海"}]}"#;
    std::fs::write(project.path("rows/chat.jsonl"), format!("{row}\n")).unwrap();
    let pipeline = format!(
        r#"
stages:
  tokenizer: {{ kind: download, with: {{ source: "file://{}" }} }}
  rows: {{ kind: download, with: {{ source: "file://rows" }} }}
  model:
    kind: init_model
    inputs: {{ tokenizer: tokenizer }}
    with: {{ config: {{ vocab_size: 4096, hidden_size: 64, intermediate_size: 128, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 32 }} }}
  tokens: {{ kind: tokenize, inputs: {{ model: model, data: rows }} }}
  base: {{ kind: quantize, inputs: {{ model: model }} }}
  adapter:
    kind: train
    inputs: {{ base: base, samples: tokens }}
    with: {{ lora: {{ r: 4, target_modules: [q_proj, down_proj], modules_to_save: [embed_tokens, lm_head] }}, num_train_epochs: 40, gradient_accumulation_steps: 1, learning_rate: 5e-3 }}
  package: {{ kind: export, inputs: {{ model: model, adapter: adapter }} }}
"#,
        tokenizer.display()
    );
    std::fs::write(project.path("p.yaml"), pipeline).unwrap();
    let ran = project.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);

    let chat = |arguments: &[&str]| {
        let ran = project
            .run(&[&["chat"], arguments, &["--device", "cpu", "--max-new-tokens", "12", "--prompt", "Hi"]].concat());
        assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
        ran.stdout
    };
    // One row, forty times: it is learned by heart, and the template's end token with it.
    assert_eq!(chat(&["adapter"]), "八仙过海\n");
    assert_eq!(chat(&["adapter", "--pipeline", "p.yaml", "--packed"]), "八仙过海\n");
    assert_eq!(chat(&["package"]), "八仙过海\n", "its base is that of the adapter, not the dense model");
    let base = chat(&["base"]);
    assert_ne!(base, "八仙过海\n");
    assert_eq!(chat(&["adapter", "--compare"]), format!("base:\n{}\n\ntuned:\n八仙过海\n", base.trim_end()));
    for (stage, folder) in [("base", "folder"), ("adapter", "tuned")] {
        assert_eq!(project.run(&["get", stage, folder]).code, 0);
    }
    assert_eq!(chat(&["folder", "--adapter", "tuned"]), "八仙过海\n");
    let tokens = project.run(&["chat", "tokens", "--prompt", "Hi"]);
    assert!(tokens.code == 2 && tokens.stderr.contains("neither a model nor an adapter"), "{}", tokens.stderr);
}
