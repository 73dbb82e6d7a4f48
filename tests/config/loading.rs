//! Files that are no text of a pipeline, and what comes of the valid ones.

use std::{fs, path::Path, time::Duration};

use pipe::{
    config::{self, ConfigError, Source, StageSpec},
    graph::Graph,
    registry,
    runs::resolved_yaml,
};
use pipe_stage::{Form, Resources};
use serde_json::json;

use super::{files, lines, parse};

fn load(path: &Path) -> Result<config::Pipeline, ConfigError> {
    config::load(path, &[], registry::KINDS)
}

#[test]
fn every_valid_file_and_every_pipeline_of_the_project_loads() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut paths = files("valid");
    assert!(paths.len() >= 4);
    let ours = ["pipelines/qwen3-sft.yaml", "examples/quickstart/pipeline.yaml", "examples/command/pipeline.yaml"];
    let variants =
        ["pipelines/qwen3-sft-original.yaml", "examples/quickstart/ablation.yaml", "examples/quickstart/ranks.yaml"];
    paths.extend(ours.into_iter().chain(variants).map(|path| root.join(path)));
    for path in paths {
        let pipeline = load(&path).unwrap_or_else(|error| panic!("{}:\n{}", path.display(), lines(&error).join("\n")));
        Graph::new(&pipeline).unwrap();
    }
}

#[test]
fn a_pipeline_is_what_its_file_says() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/valid/everything.yaml");
    let pipeline = load(&path).unwrap();
    assert_eq!(pipeline.name, "完整");
    assert_eq!(pipeline.folder, path.parent().unwrap());
    let order: Vec<_> = pipeline.stages.keys().map(config::StageName::as_str).collect();
    assert_eq!(order, ["adapter", "model", "corpus", "tokens", "kept", "parts"]);

    let adapter = &pipeline.stages["adapter"];
    let Resources { cpus, memory_bytes, gpus, time_seconds } = adapter.resources;
    assert_eq!((cpus, memory_bytes, gpus, time_seconds), (Some(4), Some(24_000_000_000), 1, Some(9000)));
    assert_eq!((adapter.retries, adapter.timeout, adapter.checkout.len()), (0, None, 0));
    let kept = &pipeline.stages["kept"];
    assert_eq!((kept.retries, kept.timeout), (2, Some(Duration::from_secs(86400))));
    assert_eq!(kept.checkout["out"], Path::new("results/kept"));
    assert_eq!(pipeline.stages["parts"].checkout["held_out"], Path::new("results/held_out"));
    let eval = &adapter.inputs["eval"][0];
    assert_eq!((eval.stage.as_str(), eval.output.as_str()), ("parts", "held_out"));
    assert_eq!(adapter.config["lora"]["lora_alpha"], json!(16.0));
    assert_eq!(adapter.config["learning_rate"], json!(1e-4));
    assert_eq!(adapter.config["weight_decay"], json!(0.5));
    assert_eq!(adapter.config["adam_epsilon"], json!(1e-8));
    assert_eq!(adapter.config["seed"], 2);
    assert_eq!(adapter.config["prompts"], json!(["no", "010", "costs ${5}"]));
    assert_eq!(adapter.config["max_grad_norm"], json!(1.0), "defaults are filled in");

    let tokens = &pipeline.stages["tokens"];
    assert_eq!(tokens.inputs["data"].iter().map(|data| data.output.as_str()).collect::<Vec<_>>(), ["out", "out"]);
    assert_eq!(tokens.config["max_length"], 384);
    assert_eq!(tokens.resources.gpus, 0);

    let corpus = &pipeline.stages["corpus"];
    assert_eq!(corpus.user_files.len(), 1);
    assert_eq!(corpus.user_files[0].path, Path::new("data/"));
}

#[test]
fn a_chain_of_ten_thousand_stages_is_within_the_bounds() {
    let stage = |i: usize| {
        format!("  s{i}: {{ kind: filter, inputs: {{ samples: s{} }}, with: {{ min_length: 2 }} }}\n", i - 1)
    };
    let first = "stages:\n  s0: { kind: download, with: { source: 'file://data' } }\n".to_owned();
    let pipeline = parse(&std::iter::once(first).chain((1..10_000).map(stage)).collect::<String>()).unwrap();
    assert_eq!(pipeline.stages.len(), 10_000);
    assert_eq!(pipeline.stages["s9999"].inputs["samples"][0].stage.as_str(), "s9998");
}

#[test]
fn the_resolved_pipeline_is_the_same_pipeline() {
    for path in files("valid") {
        let pipeline = load(&path).unwrap();
        let resolved = resolved_yaml(&pipeline);
        let source = Source::new("resolved.yaml", resolved.as_str());
        let again = config::parse(source, pipeline.folder.clone(), &[], registry::KINDS)
            .unwrap_or_else(|error| panic!("{}:\n{}\n{resolved}", path.display(), lines(&error).join("\n")));
        assert_eq!(again.name, pipeline.name);
        assert_eq!(again.stages.keys().collect::<Vec<_>>(), pipeline.stages.keys().collect::<Vec<_>>());
        for (one, two) in pipeline.stages.values().zip(again.stages.values()) {
            let taken = |spec: &StageSpec| {
                let all = spec.inputs.iter().flat_map(|(name, taken)| taken.iter().map(move |taken| (name, taken)));
                all.map(|(name, taken)| format!("{name} {}.{} {:?}", taken.stage, taken.output, taken.form)).collect()
            };
            let (inputs, inputs_again): (Vec<String>, Vec<String>) = (taken(one), taken(two));
            assert_eq!(inputs, inputs_again);
            let sorted = |spec: &StageSpec| {
                let mut files: Vec<_> = spec.user_files.iter().map(|file| (file.field.clone(), &file.path)).collect();
                files.sort();
                files.into_iter().map(|(field, path)| format!("{field} {}", path.display())).collect::<Vec<_>>()
            };
            assert_eq!(sorted(one), sorted(two));
            assert_eq!(one.config, two.config);
            assert_eq!((&one.outputs, &one.environment), (&two.outputs, &two.environment));
            assert_eq!((one.resources, one.retries, one.timeout), (two.resources, two.retries, two.timeout));
            assert_eq!(one.checkout, two.checkout);
        }
    }
}

#[test]
fn a_command_says_what_it_takes_and_makes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/valid/command.yaml");
    let pipeline = load(&path).unwrap();
    let parts = &pipeline.stages["parts"];
    let outputs: Vec<_> = parts.outputs.iter().map(|output| (output.name.as_str(), output.form)).collect();
    assert_eq!(outputs, [("small", Form::Folder), ("large", Form::File), ("out", Form::File)]);
    let inputs: Vec<_> = parts.inputs.iter().map(|(name, taken)| (name.as_str(), taken[0].form)).collect();
    assert_eq!(inputs, [("all/0", Form::File), ("lib/text", Form::File)]);
    let files: Vec<_> =
        parts.user_files.iter().map(|file| (file.field.as_str(), file.path.to_str().unwrap())).collect();
    assert_eq!(
        files,
        [
            ("scripts.0", "lib/helper.py"),
            ("scripts.1", "share"),
            ("inputs.all/1", "data.txt"),
            ("inputs.tool.py", "tools/tool.py")
        ]
    );
    let error = pipeline.problem_at(parts.file_span("inputs.all/1"), "odd", None);
    assert_eq!(lines(&error), ["9:43: odd"]);
    let error = pipeline.problem_at(parts.file_span("scripts.1"), "odd", None);
    assert_eq!(lines(&error), ["16:32: odd"]);
    assert_eq!(parts.environment, ["HF_TOKEN"]);
    assert_eq!(pipeline.stages["text"].environment, ["TOKEN"]);
    assert_eq!(pipeline.stages["text"].config["run"], "seq 3 > $OUT; echo ${OUT}");
    let report = &pipeline.stages["report"].inputs;
    let forms: Vec<_> = report.iter().map(|(name, taken)| (name.as_str(), taken[0].form)).collect();
    assert_eq!(forms, [("large", Form::File), ("rest", Form::File), ("small", Form::Folder)]);
}

#[test]
fn fields_are_found_again_for_later_problems() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/pipelines/valid/everything.yaml");
    let pipeline = load(&path).unwrap();
    let adapter = &pipeline.stages["adapter"];
    let error = pipeline.problem_at(adapter.field_span("seed"), "odd", None);
    assert_eq!(lines(&error), ["21:13: odd"]);
    let error = pipeline.problem_at(adapter.field_span("data_seed"), "a default stands where `with` does", None);
    assert_eq!(lines(&error), ["15:5: a default stands where `with` does"]);
    let error = pipeline.problem_at(adapter.inputs["samples"][0].span, "odd", None);
    assert_eq!(lines(&error), ["13:37: odd"]);
}

#[test]
fn a_name_not_given_is_the_files() {
    let text = "stages: { corpus: { kind: download, with: { source: file://data } } }";
    assert_eq!(parse(text).unwrap().name, "pipeline");
}

#[test]
fn what_is_no_file_of_a_pipeline() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);

    assert!(matches!(load(&path("missing.yaml")), Err(ConfigError::Missing { .. })));
    assert!(matches!(load(folder.path()), Err(ConfigError::Directory { .. })));

    fs::write(path("empty.yaml"), "").unwrap();
    assert_eq!(
        lines(&load(&path("empty.yaml")).err().unwrap()),
        ["1:1: the document is empty | write it, or name another"]
    );

    fs::write(path("large.yaml"), "# nothing\n".repeat(1 << 20)).unwrap();
    let error = load(&path("large.yaml")).err().unwrap();
    assert!(matches!(error, ConfigError::TooLarge { bytes: 10_485_760, .. }), "{error}");

    // "name: 中" in UTF-8, a line break, and "数" in GBK.
    fs::write(path("gbk.yaml"), b"name: \xe4\xb8\xad\n# \xe4\xb8\xad \xca\xfd\n").unwrap();
    assert_eq!(
        lines(&load(&path("gbk.yaml")).err().unwrap()),
        ["2:5: the file is not UTF-8 text | save the file as UTF-8; if it is GBK: `iconv -f GBK -t UTF-8`"]
    );

    fs::write(path("binary.yaml"), [0, 159, 146, 150]).unwrap();
    assert!(lines(&load(&path("binary.yaml")).err().unwrap())[0].starts_with("1:2: the file is not UTF-8 text"));
}

#[test]
fn hostile_texts_are_refused_and_not_run_into() {
    for text in
        ["[".repeat(100_000), "- ".repeat(100_000), "? ".repeat(100_000), "{a: ".repeat(100_000), "&a ".repeat(100_000)]
    {
        let error = parse(&text).err().unwrap();
        assert!(matches!(error, ConfigError::Invalid { .. }), "{}", &text[..10]);
    }
    let chain: String = (0..20_000).map(|n| format!("  p{n}: ${{p{}}}\n", n + 1)).collect();
    let error = parse(&format!("params:\n{chain}  p20000: 1\nstages: {{}}\n")).err().unwrap();
    assert_eq!(
        lines(&error),
        [
            "66:8: more than 64 params refer to each other in a row",
            "20003:9: the pipeline has no stages | add one: `NAME: { kind: ... }`"
        ]
    );
    let texts: String = (1..40).map(|n| format!("  p{n}: \"${{p{0}}}${{p{0}}}\"\n", n - 1)).collect();
    let error = parse(&format!("params:\n  p0: xxxxxxxxxx\n{texts}stages: {{}}\n")).err().unwrap();
    assert!(lines(&error).iter().any(|line| line.contains("beyond all bounds")), "{:?}", lines(&error));
}
