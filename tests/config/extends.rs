//! A pipeline that says only in what it differs from another one.

use std::{fs, path::Path};

use pipe::{
    config::{self, ConfigError, Pipeline},
    registry,
};

/// The base, in a folder of its own.
const BASE: &str = "\
name: sft
params: { rate: 1.0e-4, data: file://data/chat.jsonl }
stages:
  model: { kind: download, with: { source: file://model } }
  corpus: { kind: download, with: { source: '${data}' } }
  tokens: { kind: tokenize, inputs: { model: model, data: corpus }, with: { max_length: 384, num_proc: 2 } }
  kept: { kind: filter, inputs: { samples: tokens }, with: { min_length: 32 } }
";

struct Project(tempfile::TempDir);

impl Project {
    fn new(files: &[(&str, &str)]) -> Self {
        let project = Self(tempfile::tempdir().unwrap());
        for (path, text) in files.iter().chain([&("base/sft.yaml", BASE)]) {
            let path = project.0.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        project
    }

    fn load(&self, path: &str) -> Result<Pipeline, ConfigError> {
        config::load(&self.0.path().join(path), &[], registry::KINDS)
    }

    /// The problems of a file: `FILE:LINE:COLUMN: message | help`, without the folder of the project.
    fn problems(&self, path: &str) -> Vec<String> {
        let error = self.load(path).err().unwrap();
        let folder = format!("{}/", self.0.path().display());
        let problems = error.to_json();
        let line = |problem: &serde_json::Value| {
            let text = |field: &str| problem[field].as_str().unwrap_or_default().replace(&folder, "");
            format!(
                "{}:{}:{}: {} | {}",
                text("file"),
                problem["line"],
                problem["column"],
                text("message"),
                text("help")
            )
        };
        problems.as_array().unwrap().iter().map(line).collect()
    }
}

#[test]
fn an_ablation_is_five_lines() {
    let project = Project::new(&[(
        "ablation.yaml",
        "extends: base/sft.yaml\nstages:\n  tokens:\n    with: { max_length: 128 }\n  kept: { with: { min_length: 16 } }\n",
    )]);
    let pipeline = project.load("ablation.yaml").unwrap();
    assert_eq!(pipeline.name, "ablation", "the name is not inherited");
    let tokens = &pipeline.stages["tokens"].config;
    assert_eq!((&tokens["max_length"], &tokens["num_proc"]), (&128.into(), &2.into()));
    assert_eq!(pipeline.stages["kept"].config["min_length"], 16);
    assert_eq!(
        pipeline.stages.keys().map(|name| name.as_str()).collect::<Vec<_>>(),
        ["model", "corpus", "tokens", "kept"]
    );
}

#[test]
fn paths_start_from_the_file_that_says_them() {
    let project = Project::new(&[
        ("one.yaml", "extends: base/sft.yaml\n"),
        ("two.yaml", "extends: base/sft.yaml\nparams: { data: file://mine.jsonl }\n"),
        ("deep/er/three.yaml", "extends: ../../two.yaml\n"),
    ]);
    let file = |path: &str| {
        let pipeline = project.load(path).unwrap();
        let file = pipeline.folder.join(&pipeline.stages["corpus"].user_files[0].path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::canonicalize(file.parent().unwrap()).unwrap().join(file.file_name().unwrap())
    };
    let root = fs::canonicalize(project.0.path()).unwrap();
    assert_eq!(file("one.yaml"), root.join("base/data/chat.jsonl"));
    assert_eq!(file("two.yaml"), root.join("mine.jsonl"));
    assert_eq!(file("deep/er/three.yaml"), root.join("mine.jsonl"));
}

#[test]
fn nothing_takes_away_and_another_kind_replaces() {
    let project = Project::new(&[(
        "less.yaml",
        "extends: base/sft.yaml\nstages:\n  kept: ~\n  tokens: { with: { num_proc: ~ } }\n  model: { kind: init_model, with: { preset: qwen3-0.6b } }\n",
    )]);
    let pipeline = project.load("less.yaml").unwrap();
    assert!(!pipeline.stages.contains_key("kept"));
    assert!(pipeline.stages["tokens"].config["num_proc"].is_null());
    assert_eq!(pipeline.stages["model"].declaration.kind, "init_model");
}

#[test]
fn several_files_lie_on_top_of_each_other() {
    let project = Project::new(&[
        ("short.yaml", "stages: { tokens: { with: { max_length: 64 } } }\n"),
        ("strict.yaml", "stages: { kept: { with: { min_length: 60 } }, tokens: { with: { max_length: 65 } } }\n"),
        ("both.yaml", "extends: [base/sft.yaml, short.yaml, strict.yaml]\n"),
    ]);
    let pipeline = project.load("both.yaml").unwrap();
    assert_eq!(pipeline.stages["tokens"].config["max_length"], 65);
    assert_eq!(pipeline.stages["kept"].config["min_length"], 60);
}

#[test]
fn a_problem_is_shown_in_the_file_that_has_it() {
    let project = Project::new(&[
        ("broken.yaml", "stages:\n  tokens: { with: { max_length: lots } }\n"),
        ("top.yaml", "extends: [base/sft.yaml, broken.yaml]\nstages:\n  kept: { with: { min: 3 } }\n"),
    ]);
    assert_eq!(
        project.problems("top.yaml"),
        [
            "top.yaml:3:19: unknown field `min` | expected one of `min_length`, `max_length`, `on_too_long`, `truncation_side`, \
             `drop_unlabelled`, `dedup`, `keep_patterns`, `drop_patterns`, `near_dedup`",
            "broken.yaml:2:33: expected a whole number from 0, found `lots` | ",
        ]
    );
    let error = project.load("top.yaml").err().unwrap();
    let text = config::render(&error, false, 100);
    assert!(text.contains("broken.yaml:2:33") && text.contains("max_length: lots"), "{text}");
}

#[test]
fn a_file_that_cannot_be_extended_is_named_where_it_is_asked_for() {
    let project = Project::new(&[
        ("missing.yaml", "extends: base/sfd.yaml\n"),
        ("circle.yaml", "extends: other/back.yaml\n"),
        ("other/back.yaml", "extends: ../circle.yaml\n"),
        ("itself.yaml", "extends: ./itself.yaml\n"),
        ("list.yaml", "extends: { a: b }\n"),
        ("misspelt.yaml", "extends: base/sft.yaml\nstages:\n  token: { with: { max_length: 3 } }\n"),
    ]);
    let problems = |path: &str| project.problems(path).join("\n");
    assert_eq!(
        problems("missing.yaml"),
        "missing.yaml:1:10: cannot extend `base/sfd.yaml`: there is no such file | it is looked for at base/sfd.yaml"
    );
    let circle = problems("circle.yaml");
    assert!(
        circle.contains("back.yaml:1:10: these files extend each other: circle.yaml -> other/back.yaml"),
        "{circle}"
    );
    assert!(problems("itself.yaml").contains("these files extend each other"), "{}", problems("itself.yaml"));
    assert!(problems("list.yaml").starts_with("list.yaml:1:10: expected a pipeline file, found a mapping"));
    let misspelt = problems("misspelt.yaml");
    assert!(misspelt.contains("misspelt.yaml:3:3: missing field `kind` of a stage"), "{misspelt}");
    assert!(misspelt.contains("what is extended has no stage `token`: did you mean `tokens`?"), "{misspelt}");
}

#[test]
fn a_text_without_a_file_extends_nothing() {
    let source = config::Source::new("text", "extends: /etc/passwd\n");
    let error = config::parse(source, Path::new("/").to_owned(), &[], registry::KINDS).err().unwrap();
    assert!(error.to_json()[0]["message"].as_str().unwrap().contains("there is no such file"));
}

#[test]
fn a_param_of_the_base_is_said_to_come_from_there() {
    let text = "extends: base/sft.yaml\nstages:\n  kept: { with: { min_length: '${rate}' } }\n";
    let project = Project::new(&[("ablation.yaml", text)]);
    let problems = project.problems("ablation.yaml");
    assert!(problems[0].contains("`${rate}` is `1.0e-4`, from line 2 of base/sft.yaml"), "{problems:?}");
}
