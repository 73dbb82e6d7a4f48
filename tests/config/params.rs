//! `${...}` and `--set` that work.

use serde_json::{Value, json};

use super::{parse, parse_with};

/// The value that `prompts` of a train stage gets.
fn prompts(params: &str, prompts: &str) -> Value {
    let text = format!(
        "params: {params}\nstages:\n  base: {{ kind: download, with: {{ source: file://m }} }}\n  \
         a:\n    kind: train\n    inputs: {{ base: base, samples: base }}\n    with:\n      prompts: {prompts}\n"
    );
    parse(&text).unwrap_or_else(|error| panic!("{text}\n{}", super::lines(&error).join("\n"))).stages["a"].config
        ["prompts"]
        .clone()
}

#[test]
fn a_param_alone_keeps_its_type_and_one_in_a_text_is_written_out() {
    assert_eq!(prompts("{ list: [a, b] }", "${list}"), json!(["a", "b"]));
    assert_eq!(prompts("{ list: [a, b] }", "\"${list}\""), json!(["a", "b"]));
    assert_eq!(prompts("{ list: [a, b] }", "[\"${list.1}\", \"<${list.0}>\"]"), json!(["b", "<a>"]));
    assert_eq!(prompts("{ n: 1e-4 }", "[\"n = ${n}\", \"${ n }${n}\"]"), json!(["n = 1e-4", "1e-41e-4"]));
}

#[test]
fn params_may_refer_to_params_in_any_order() {
    assert_eq!(prompts("{ a: \"${b}!\", b: \"${c.d}\", c: { d: x } }", "[\"${a}\"]"), json!(["x!"]));
}

#[test]
fn two_dollars_stand_for_the_characters() {
    assert_eq!(prompts("{ a: 1 }", "[\"$${a}\", \"$$${a}\", \"$5 ${a} {x}\"]"), json!(["${a}", "$${a}", "$5 1 {x}"]));
}

const PIPELINE: &str = "
params: { rate: 1e-4, model: { owner: Qwen, name: base } }
stages:
  base: { kind: download, with: { source: \"hf://${model.owner}/${model.name}\" } }
  a:
    kind: train
    inputs: { base: base, samples: base }
    with: { learning_rate: \"${rate}\", prompts: [x, y] }
";

#[test]
fn overrides_win_over_the_file_and_later_ones_over_earlier_ones() {
    let pipeline = parse_with(
        PIPELINE,
        &[
            ("rate", "1"),
            ("rate", "2e-3"),
            ("params.model.name", "large"),
            ("stages.a.with.lora.r", "16"),
            ("stages.a.with.prompts.1", "z"),
            ("stages.a.resources.gpus", "1"),
            ("name", "other"),
        ],
    )
    .unwrap();
    let config = &pipeline.stages["a"].config;
    assert_eq!(pipeline.name, "other");
    assert_eq!(pipeline.stages["base"].config["source"], "hf://Qwen/large");
    assert_eq!(config["learning_rate"], json!(2e-3));
    assert_eq!(config["lora"]["r"], 16);
    assert_eq!(config["prompts"], json!(["x", "z"]));
    assert_eq!(pipeline.stages["a"].resources.gpus, 1);
}

#[test]
fn an_override_is_yaml_and_may_use_params() {
    let pipeline = parse_with(
        PIPELINE,
        &[("stages.a.with.prompts", "[\"${model.owner}\", 'b: c']"), ("stages.a.with.warmup_ratio", "null")],
    )
    .unwrap();
    assert_eq!(pipeline.stages["a"].config["prompts"], json!(["Qwen", "b: c"]));
    assert_eq!(pipeline.stages["a"].config["warmup_ratio"], Value::Null);
}

#[test]
fn the_same_values_written_otherwise_give_the_same_pipeline() {
    let plain = parse(PIPELINE).unwrap();
    let written =
        PIPELINE.replace("\"${rate}\"", "0.0001").replace("\"hf://${model.owner}/${model.name}\"", "'hf://Qwen/base'");
    let written = parse(&written).unwrap();
    for (name, stage) in &plain.stages {
        assert_eq!(stage.config, written.stages[name].config, "{name}");
    }
}
