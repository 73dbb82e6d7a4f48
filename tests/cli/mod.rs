//! The real program from outside: exit codes, what it prints, and a whole fine-tune.

mod cache;
mod chat;
mod explain;
mod get;
mod hostile;
mod init;
mod memory;
mod names;
mod odd;
mod remote;
mod reproduce;
mod runs;
mod secrets;
mod serve;
mod share;
mod shell;
mod show;

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::Value;

struct Project {
    folder: tempfile::TempDir,
}

struct Ran {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Project {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pipe"));
        command.args(arguments).current_dir(self.folder.path()).env("PIPE_HOME", self.path("home"));
        command
    }

    fn run(&self, arguments: &[&str]) -> Ran {
        self.command(arguments).output().unwrap().into()
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

fn quickstart() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/quickstart/pipeline.yaml").display().to_string()
}

/// `(stage, action)` of a plan.
fn actions(ran: &Ran) -> Vec<(String, String)> {
    let plan: Value = serde_json::from_str(&ran.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    plan["stages"].as_array().unwrap().iter().map(|stage| (text(&stage["stage"]), text(&stage["action"]))).collect()
}

#[test]
fn an_invalid_pipeline_is_2_and_says_where() {
    let project = Project::new();
    std::fs::write(project.path("p.yaml"), "stages:\n  a: { kind: tokenise }\n").unwrap();
    let ran = project.run(&["check", "p.yaml"]);
    assert_eq!(ran.code, 2);
    assert!(ran.stderr.contains("p.yaml:2:14") && ran.stderr.contains("did you mean `tokenize`?"), "{}", ran.stderr);

    let ran = project.run(&["check", "p.yaml", "--format", "json"]);
    assert_eq!(ran.code, 2);
    let problems: Value = serde_json::from_str(&ran.stdout).unwrap();
    assert!(problems["problems"].to_string().contains("tokenise"), "{problems}");

    assert_eq!(project.run(&["run", "nowhere.yaml"]).code, 2);
    assert_eq!(project.run(&["check", &quickstart(), "--set", "seed"]).code, 2);
    assert_eq!(project.run(&["frobnicate"]).code, 2);
    assert_eq!(project.run(&["check", &quickstart()]).code, 0);
}

#[test]
fn a_light_pipeline_runs_once_and_is_then_up_to_date() {
    let project = Project::new();
    let file = quickstart();
    let plan = project.run(&["plan", &file, "base", "--format", "json"]);
    assert!(actions(&plan).iter().all(|(_, action)| action == "run"), "{}", plan.stdout);

    let first = project.run(&["run", &file, "base", "parts"]);
    assert_eq!(first.code, 0, "{}", first.stderr);
    let second = project.run(&["run", &file, "base", "parts"]);
    assert_eq!((second.code, second.stderr.lines().count()), (0, 1), "{}", second.stderr);
    assert!(second.stderr.starts_with("up to date: 7 stages"), "{}", second.stderr);

    let plan = project.run(&["plan", &file, "base", "parts", "--set", "stages.kept.with.min_length=40"]);
    assert!(plan.stdout.contains("`min_length` changed from 32 to 40"), "{}", plan.stdout);
    assert!(plan.stdout.contains("1 to run, 1 only if"), "{}", plan.stdout);

    let got = project.run(&["get", "parts.train", "train"]);
    assert_eq!(got.code, 0, "{}", got.stderr);
    assert!(project.path("train/samples.parquet").is_file());
    let again = project.run(&["get", "parts.train", "train"]);
    assert!(again.code == 0 && again.stdout.ends_with(" is in train already\n"), "{} {}", again.stdout, again.stderr);
    std::fs::write(project.path("train/samples.parquet"), "edited").unwrap();
    let edited = project.run(&["get", "parts.train", "train"]);
    assert!(edited.code == 2 && edited.stderr.contains("was changed since pipe wrote it"), "{}", edited.stderr);
    assert_eq!(project.run(&["get", "parts.train", "train", "--force"]).code, 0);
    let unknown = project.run(&["get", "pats", "elsewhere"]);
    assert!(unknown.code == 2 && !project.path("elsewhere").exists(), "{}", unknown.stderr);
    assert!(project.run(&["log", "tokens"]).stdout.contains("tokens (tokenize)"));
}

#[test]
fn a_failed_stage_is_1_and_names_the_command_to_go_on() {
    let project = Project::new();
    let ran = project.run(&[
        "run",
        &quickstart(),
        "kept",
        "--set",
        "stages.kept.with.min_length=384",
        "--set",
        "max_length=64",
    ]);
    assert_eq!(ran.code, 1, "{}", ran.stderr);
    assert!(ran.stderr.contains("error: stage `kept` (filter)"), "{}", ran.stderr);
    assert!(ran.stderr.contains("to go on from here: pipe run"), "{}", ran.stderr);
}

#[test]
fn a_missing_worker_is_3_and_says_how_to_get_it() {
    let project = Project::new();
    let run = ["run", &quickstart(), "before"].map(str::to_owned);
    let arguments: Vec<&str> = run.iter().map(String::as_str).collect();
    let ran: Ran = project.command(&arguments).env("PIPE_TORCH", "/nonexistent").output().unwrap().into();
    assert_eq!(ran.code, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains("make build"), "{}", ran.stderr);
}

#[test]
fn graphs_and_schema_are_what_their_formats_want() {
    let project = Project::new();
    let dag = |format: &str| project.run(&["dag", &quickstart(), "--format", format]).stdout;
    assert!(dag("text").contains("kept       filter      <- samples: tokens"), "{}", dag("text"));
    assert!(
        dag("mermaid").starts_with("flowchart TD\n") && dag("mermaid").contains("s_tokens -->|\"samples\"| s_kept")
    );
    assert!(dag("dot").starts_with("digraph \"quickstart\" {") && dag("dot").ends_with("}\n"));
    assert_eq!(serde_json::from_str::<Value>(&dag("json")).unwrap()["stages"].as_array().unwrap().len(), 11);
    let schema: Value = serde_json::from_str(&project.run(&["schema"]).stdout).unwrap();
    assert!(schema.is_object());
    assert!(serde_json::from_str::<Value>(&project.run(&["doctor", "--format", "json"]).stdout).is_ok());
}

/// Needs `pipe-torch` beside `pipe`, as `make test` builds it.
#[test]
fn a_whole_fine_tune_learns_and_comes_out_the_same_twice() {
    let file = quickstart();
    let small = ["max_length=96", "stages.kept.with.min_length=16", "stages.adapter.with.num_train_epochs=0.1"];
    let mut arguments = vec!["run", &file];
    for value in small {
        arguments.extend(["--set", value]);
    }
    let bytes = [Project::new(), Project::new()].map(|project| {
        let ran = project.run(&arguments);
        assert_eq!(ran.code, 0, "{}", ran.stderr);
        let perplexity = |stage: &str| {
            assert_eq!(project.run(&["get", stage, stage]).code, 0);
            let report = std::fs::read(project.path(stage).join("report.json")).unwrap();
            serde_json::from_slice::<Value>(&report).unwrap()["perplexity"].as_f64().unwrap()
        };
        assert!(perplexity("after") < 0.8 * perplexity("before"));
        let mut plan = arguments.clone();
        plan[0] = "plan";
        plan.extend(["--set", "stages.adapter.with.learning_rate=1e-3", "--format", "json"]);
        let changed: Vec<_> = actions(&project.run(&plan)).into_iter().filter(|(_, action)| action != "hit").collect();
        let stages: Vec<&str> = changed.iter().map(|(stage, _)| stage.as_str()).collect();
        assert_eq!(stages, ["adapter", "after", "package"]);
        assert_eq!(project.run(&["get", "package", "package"]).code, 0);
        std::fs::read(project.path("package/adapter_model.safetensors")).unwrap()
    });
    assert!(bytes[0] == bytes[1], "two runs made different adapters");
}
