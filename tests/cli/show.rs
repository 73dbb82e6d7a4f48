//! `pipe show`: a sample as the model sees it, and what else a stage can have made.

use std::path::Path;

use serde_json::Value;

use super::{Project, Ran, shell::offered};

const ROWS: &str = r#"{"messages": [{"role": "user", "content": "三月里扇扇子？"}, {"role": "assistant", "content": "满面春风\t😀𠮷"}]}
{"messages": [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "It is 5.\n\nTwo and three are five, as everybody knows who has counted the fingers of one hand."}]}
{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "no"}]}
"#;

/// A run that made samples, a model, an adapter's settings and rows.
fn project() -> Project {
    let project = Project::new();
    let tokenizer = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/tokenizer");
    std::fs::create_dir(project.path("rows")).unwrap();
    std::fs::write(project.path("rows/chat.jsonl"), ROWS).unwrap();
    let pipeline = format!(
        r#"
stages:
  tokenizer: {{ kind: download, with: {{ source: "file://{}" }} }}
  rows: {{ kind: download, with: {{ source: "file://rows" }} }}
  tokens: {{ kind: tokenize, inputs: {{ model: tokenizer, data: rows }}, with: {{ max_length: 40, loss_on: assistant }} }}
  kept: {{ kind: filter, inputs: {{ samples: tokens }}, with: {{ min_length: 15 }} }}
  twice: {{ kind: mix, inputs: {{ all: kept }}, with: {{ sources: {{ all: {{ repeat: 2 }} }} }} }}
  parts: {{ kind: split, inputs: {{ samples: twice }}, with: {{ held_out_rows: 1 }} }}
  model:
    kind: init_model
    inputs: {{ tokenizer: tokenizer }}
    with: {{ config: {{ vocab_size: 4096, hidden_size: 32, intermediate_size: 64, num_hidden_layers: 1, num_attention_heads: 2, num_key_value_heads: 1, head_dim: 16 }} }}
  adapter:
    kind: command
    with:
      run: |
        mkdir -p out
        echo '{{"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"]}}' > out/adapter_config.json
        printf '\033[2Jhidden\n' > out/notes.txt
      outputs: out/
  alone: {{ kind: command, inputs: {{ s: tokens }}, with: {{ run: "mkdir -p out; cp s/samples.parquet out/", outputs: out/ }} }}
"#,
        tokenizer.display()
    );
    std::fs::write(project.path("p.yaml"), pipeline).unwrap();
    let ran = project.run(&["run", "p.yaml"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    project
}

/// What is shown, with the name of the run out of the way.
fn shown(project: &Project, arguments: &[&str]) -> String {
    let ran = project.run(&[&["show"], arguments].concat());
    assert_eq!((ran.code, ran.stderr.as_str()), (0, ""), "{arguments:?}");
    let run = ran.stdout.lines().next().unwrap().split(' ').next_back().unwrap().to_owned();
    ran.stdout.replace(&run, "RUN")
}

fn json(project: &Project, arguments: &[&str]) -> Value {
    let ran = project.run(&[&["show", "--format", "json"], arguments].concat());
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    serde_json::from_str(&ran.stdout).unwrap()
}

#[test]
fn samples_are_shown_as_the_model_sees_them() {
    let project = project();
    let rows = [shown(&project, &["kept"]), shown(&project, &["kept", "--row", "1"])];
    insta::assert_snapshot!("samples", rows.join("--------\n"));
    insta::assert_snapshot!("ids", shown(&project, &["tokens", "--row", "2", "--ids"]));

    // What the loss counts is what the assistant says, each character with all its tokens.
    let first = json(&project, &["kept"]);
    let tokens = first["row"]["tokens"].as_array().unwrap();
    let trained = tokens.iter().filter(|token| token["trained"].as_bool().unwrap());
    let text: String = trained.map(|token| token["text"].as_str().unwrap()).collect();
    assert!(text.ends_with("满面春风\t😀𠮷<|im_end|>"), "{text}");
    let whole: String = tokens.iter().map(|token| token["text"].as_str().unwrap()).collect();
    assert!(whole.starts_with("<|im_start|>user\n三月里扇扇子？<|im_end|>"), "{whole}");
    let ids: usize = tokens.iter().map(|token| token["ids"].as_array().unwrap().len()).sum();
    assert_eq!(first["row"]["length"], ids);
    assert_eq!((&first["rows"], &first["max_length"]), (&2.into(), &40.into()));
    assert_eq!(first["stages"][0]["truncated"], 1);
    assert_eq!(first["stages"][1]["dropped"], 1);
}

#[test]
fn the_tokenizer_is_found_behind_any_stage_of_samples() {
    let project = project();
    for output in ["tokens", "kept", "twice", "parts.train", "parts.held_out"] {
        let row = json(&project, &[output]);
        assert_eq!((&row["row"]["decoded"], &row["max_length"]), (&true.into(), &40.into()), "{output}");
    }
    let steps = json(&project, &["parts.train"])["stages"].clone();
    let steps: Vec<(&Value, &Value)> =
        steps.as_array().unwrap().iter().map(|step| (&step["stage"], &step["dropped"])).collect();
    assert_eq!(steps, [(&"tokens".into(), &0.into()), (&"kept".into(), &1.into()), (&"twice".into(), &0.into())]);
    assert_eq!(json(&project, &["alone"])["row"]["decoded"], true, "a command takes samples too");

    // Samples from elsewhere have none.
    assert_eq!(project.run(&["get", "tokens", "ready"]).code, 0);
    let pipeline = "stages: { ready: { kind: download, with: { source: \"file://ready\" } } }";
    std::fs::write(project.path("ready.yaml"), pipeline).unwrap();
    assert_eq!(project.run(&["run", "ready.yaml"]).code, 0);
    let ready = shown(&project, &["ready", "--row", "2"]);
    assert!(ready.contains("no tokenizer was found"), "{ready}");
    assert!(ready.contains("  4094 275 198 39 72 4095 198 4094 277 198 ⟦2967 4095 ⟧198\n"), "{ready}");
}

#[test]
fn colours_say_what_is_trained_where_there_are_colours() {
    let project = project();
    let coloured: Ran = project.command(&["show", "kept"]).env("CLICOLOR_FORCE", "1").output().unwrap().into();
    assert!(coloured.stdout.contains("\u{1b}[30;42m") && !coloured.stdout.contains('⟦'), "{}", coloured.stdout);
    let arguments = ["show", "kept"];
    let mut plain = project.command(&arguments);
    let plain: Ran = plain.env("CLICOLOR_FORCE", "1").env("NO_COLOR", "1").output().unwrap().into();
    assert!(!plain.stdout.contains('\u{1b}') || !plain.stdout.contains('⟦'), "{}", plain.stdout);
}

#[test]
fn other_artifacts_are_shown_by_their_files() {
    let project = project();
    let folders = ["rows", "model", "adapter"].map(|stage| shown(&project, &[stage]));
    insta::assert_snapshot!("folders", folders.join("--------\n"));
    assert_eq!(json(&project, &["adapter"])["adapter"]["r"], 8);
    assert!(json(&project, &["model"])["tensors"]["count"].as_u64().unwrap() > 10);
}

#[test]
fn what_is_not_there_is_said() {
    let project = project();
    let error = |arguments: &[&str]| {
        let ran = project.run(&[&["show"], arguments].concat());
        assert_eq!((ran.code, ran.stdout.as_str()), (2, ""));
        ran.stderr
    };
    let stderr = error(&["kept", "--row", "2"]);
    assert!(stderr.contains("`kept` has no row 2: it has 2 rows") && stderr.contains("the last one is 1"), "{stderr}");
    assert!(error(&["kept", "--row=-1"]).contains("a whole number from 0"));
    assert!(error(&["parts"]).contains("name one: parts.held_out, parts.train"));
    assert!(error(&["keptt"]).contains("keptt"));
    let words = offered(&project, &["pipe", "show", ""]);
    assert!(["kept", "parts.train", "model"].iter().all(|word| words.iter().any(|other| other == word)), "{words:?}");
}
