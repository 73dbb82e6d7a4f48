//! Tests of the plan, told as runs: the first, and the one after a change.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::PathBuf;

use pipe_stage::UserFile;
use serde_json::json;

use super::*;
use crate::{
    cache::{Environment, FileIdentity, Home, UserFiles},
    graph::tests::{FAKE_2, name, pipeline},
    pins::Pins,
    runs::Outcome,
    selection::Request,
};

/// A cache in memory, and a scheduler that makes an artifact out of a key.
#[derive(Default)]
pub(super) struct Memory {
    pub(super) records: HashMap<Key, ActionRecord>,
    last: HashMap<StageName, Key>,
    flaws: HashMap<Digest, Flaw>,
    pub(super) unsuccessful: HashMap<StageName, Unsuccessful>,
    pub(super) folders: HashMap<Digest, Manifest>,
    /// By key, the number of the run that made it.
    runs: HashMap<Key, usize>,
    /// By run, the keys of its stages.
    keys: Vec<HashMap<String, Key>>,
    pub(super) externals: Externals,
    /// Stages that make the same artifact whatever goes in.
    constant: BTreeSet<StageName>,
}

impl Lookup for Memory {
    fn record(&self, key: &Key) -> Option<ActionRecord> {
        self.records.get(key).cloned()
    }

    fn last(&self, stage: &StageName) -> Option<ActionRecord> {
        self.records.get(self.last.get(stage)?).cloned()
    }

    fn verify(&self, artifact: &Digest) -> Result<(), Flaw> {
        self.flaws.get(artifact).cloned().map_or(Ok(()), Err)
    }

    fn unsuccessful(&self, stage: &StageName) -> Option<Unsuccessful> {
        self.unsuccessful.get(stage).cloned()
    }

    fn folder(&self, digest: &Digest) -> Option<Manifest> {
        self.folders.get(digest).cloned()
    }

    fn story(&self, record: &ActionRecord) -> Option<Story> {
        let run = format!("20260101-000000-{:03}-0000", self.runs.get(&record.key)?);
        let ended = jiff::Timestamp::UNIX_EPOCH;
        Some(Story { run: run.parse().unwrap(), ended, duration_seconds: 0.0, reasons: vec!["told".to_owned()] })
    }

    fn keys_beside(&self, record: &ActionRecord) -> HashMap<String, Key> {
        self.runs.get(&record.key).map(|run| self.keys[*run].clone()).unwrap_or_default()
    }
}

impl Memory {
    /// The plan, one line a stage.
    fn plan(&self, pipeline: &Pipeline) -> Vec<String> {
        let graph = Graph::new(pipeline).unwrap();
        let selection = Request::default().select(&graph).unwrap();
        let plan = Plan::new(pipeline, &graph, &selection, &self.externals, self);
        let words = |reasons: &[Reason]| reasons.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
        let line = |stage: &StagePlan| match &stage.action {
            Action::Hit { .. } => format!("{} hit", stage.stage),
            Action::Run { reasons } => format!("{} run: {}", stage.stage, words(reasons)),
            Action::Maybe { reasons } => format!("{} maybe: {}", stage.stage, words(reasons)),
        };
        plan.stages.iter().map(line).collect()
    }

    /// Runs what has to run and says what that was.
    fn run(&mut self, pipeline: &Pipeline) -> Vec<String> {
        let graph = Graph::new(pipeline).unwrap();
        self.run_for(pipeline, graph.order())
    }

    /// The same for some stages and what they need.
    pub(super) fn run_for<'a>(
        &mut self,
        pipeline: &Pipeline,
        targets: impl IntoIterator<Item = &'a StageName>,
    ) -> Vec<String> {
        let graph = Graph::new(pipeline).unwrap();
        let selected = graph.needed_for(targets);
        let mut made = HashMap::new();
        let mut ran = Vec::new();
        let mut keys = HashMap::new();
        for name in &selected {
            let spec = &pipeline.stages[name];
            let (inputs, waits_for) = resolve(spec, &made);
            assert!(waits_for.is_empty());
            let decision = decide(spec, inputs, self.externals.of(name), self);
            self.last.insert(name.clone(), decision.key);
            keys.insert(name.to_string(), decision.key);
            let outputs = match decision.action {
                Action::Hit { outputs } => outputs,
                _ => {
                    ran.push(name.to_string());
                    let seed = if self.constant.contains(name) { name.to_string() } else { decision.key.to_string() };
                    let record = record(&decision, Digest::of(seed.as_bytes()));
                    self.flaws.clear();
                    self.runs.insert(decision.key, self.keys.len());
                    self.records.insert(decision.key, record.clone());
                    record.outputs
                }
            };
            made.insert(name, outputs);
        }
        self.keys.push(keys);
        ran
    }

    fn artifact(&self, stage: &str) -> Digest {
        self.last(&name(stage)).unwrap().outputs["out"]
    }
}

fn record(decision: &Decision, out: Digest) -> ActionRecord {
    ActionRecord {
        key: decision.key,
        stage: String::new(),
        identity: decision.identity.clone(),
        outputs: [("out".to_owned(), out)].into(),
        figures: Default::default(),
        metrics: Default::default(),
        environment: Environment::default(),
        started: jiff::Timestamp::UNIX_EPOCH,
        ended: jiff::Timestamp::UNIX_EPOCH,
        duration_seconds: 0.0,
        log: PathBuf::new(),
    }
}

/// tokens -> kept -> adapter -> package, and a stage apart.
pub(super) fn example() -> Pipeline {
    let mut pipeline = pipeline("tokens:\nkept: tokens\nadapter: kept\npackage: adapter\napart:");
    config(&mut pipeline, "adapter", json!({ "learning_rate": 1e-4, "lora": { "r": 16, "alpha": 32 }, "bf16": true }));
    config(&mut pipeline, "apart", json!({ "seed": 1 }));
    pipeline
}

pub(super) fn config(pipeline: &mut Pipeline, stage: &str, config: serde_json::Value) {
    pipeline.stages.get_mut(stage).unwrap().config = config;
}

#[test]
fn first_everything_runs_then_nothing() {
    let (mut memory, pipeline) = (Memory::default(), example());
    assert_eq!(
        memory.plan(&pipeline),
        [
            "tokens run: never run",
            "kept run: never run; `tokens` runs first",
            "adapter run: never run; `kept` runs first",
            "package run: never run; `adapter` runs first",
            "apart run: never run"
        ]
    );
    assert_eq!(memory.run(&pipeline), ["tokens", "kept", "adapter", "package", "apart"]);
    assert_eq!(memory.plan(&pipeline), ["tokens hit", "kept hit", "adapter hit", "package hit", "apart hit"]);
    assert!(memory.run(&pipeline).is_empty());
}

#[test]
fn a_changed_value_is_named_and_only_what_depends_on_it_runs() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    memory.run(&pipeline);
    config(
        &mut pipeline,
        "adapter",
        json!({ "learning_rate": 2e-4, "lora": { "r": 8, "dropout": 0.05 }, "bf16": true }),
    );
    assert_eq!(
        memory.plan(&pipeline),
        [
            "tokens hit",
            "kept hit",
            "adapter run: `learning_rate` changed from 1e-4 to 2e-4; `lora.r` changed from 16 to 8; \
             `lora.dropout` is new: 0.05; `lora.alpha` is gone",
            "package maybe: `adapter` runs first",
            "apart hit"
        ]
    );
    assert_eq!(memory.run(&pipeline), ["adapter", "package"]);
    assert!(memory.run(&example()).is_empty(), "going back finds what was made before");
}

#[test]
fn what_makes_the_same_again_stops_the_change() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    memory.constant.insert(name("kept"));
    memory.run(&pipeline);
    config(&mut pipeline, "tokens", json!({ "max_length": 512 }));
    let before = memory.artifact("tokens");
    assert_eq!(memory.run(&pipeline), ["tokens", "kept"]);
    let after = memory.artifact("tokens");

    memory.last.insert(
        name("kept"),
        *memory.records.iter().find(|(_, r)| r.identity.inputs.values().flatten().any(|d| *d == before)).unwrap().0,
    );
    memory.records.retain(|_, record| !record.identity.inputs.values().flatten().any(|digest| *digest == after));
    assert_eq!(
        memory.plan(&pipeline)[1..3],
        [
            format!("kept run: input `data` changed: `tokens` made {}, it was {}", after.short(), before.short()),
            "adapter maybe: `kept` runs first".to_owned()
        ]
    );
}

#[test]
fn a_stage_that_waits_and_changed_itself_says_both() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    memory.run(&pipeline);
    config(&mut pipeline, "tokens", json!({ "max_length": 512 }));
    config(&mut pipeline, "package", json!({ "card": "text" }));
    assert_eq!(
        memory.plan(&pipeline),
        [
            "tokens run: `max_length` is new: 512",
            "kept maybe: `tokens` runs first",
            "adapter maybe: `kept` runs first",
            "package run: `card` is new: \"text\"; `adapter` runs first",
            "apart hit"
        ]
    );
}

#[test]
fn what_the_last_run_failed_of_is_said_instead_of_nothing() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    let attempt = |pipeline: &Pipeline, outcome| {
        let identity = identify(&pipeline.stages["tokens"], BTreeMap::new(), &External::default());
        let error = vec!["no space left".to_owned(), "disk\nfull".to_owned()];
        Unsuccessful { run: "20260101-000000-000-0000".parse().unwrap(), key: identity.key(), outcome, error }
    };
    let failed = "the last run failed: no space left: disk full";
    for (outcome, words) in [
        (Outcome::Failed, failed),
        (Outcome::Cancelled, "the last run was stopped"),
        (Outcome::Unfinished, "the last run was killed"),
    ] {
        memory.unsuccessful.insert(name("tokens"), attempt(&pipeline, outcome));
        let plan = memory.plan(&pipeline);
        assert_eq!(plan[..2], [format!("tokens run: {words}"), "kept run: never run; `tokens` runs first".to_owned()]);
    }

    // Once there is something to compare with, that comes first, and the failure only counts if it was of just this.
    memory.run(&pipeline);
    config(&mut pipeline, "tokens", json!({ "max_length": 512 }));
    memory.unsuccessful.insert(name("tokens"), attempt(&pipeline, Outcome::Failed));
    assert_eq!(memory.plan(&pipeline)[0], format!("tokens run: `max_length` is new: 512; {failed}"));
    config(&mut pipeline, "tokens", json!({ "max_length": 256 }));
    assert_eq!(memory.plan(&pipeline)[0], "tokens run: `max_length` is new: 256");
}

#[test]
fn another_version_or_kind_is_a_reason() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    memory.run(&pipeline);
    pipeline.stages.get_mut("apart").unwrap().declaration = &FAKE_2;
    assert_eq!(memory.plan(&pipeline)[4], "apart run: kind `fake` changed from version 1 to 2");
    let key = memory.last[&name("apart")];
    memory.records.get_mut(&key).unwrap().identity.kind = "other".to_owned();
    assert_eq!(memory.plan(&pipeline)[4], "apart run: kind changed from `other` to `fake`");
}

#[test]
fn missing_and_damaged_outputs_run_their_stage() {
    let (mut memory, pipeline) = (Memory::default(), example());
    memory.run(&pipeline);
    memory.flaws.insert(memory.artifact("kept"), Flaw::Missing { file: None });
    let file = Some("adapter_model.safetensors".to_owned());
    memory.flaws.insert(memory.artifact("apart"), Flaw::Damaged { file, why: "its bytes have changed".to_owned() });
    assert_eq!(
        memory.plan(&pipeline),
        [
            "tokens hit",
            "kept run: output `out` is missing",
            "adapter maybe: `kept` runs first",
            "package maybe: `adapter` runs first",
            "apart run: output `out` is damaged (`adapter_model.safetensors`): its bytes have changed"
        ]
    );
    let key = memory.last[&name("apart")];
    memory.records.get_mut(&key).unwrap().outputs = [("other".to_owned(), Digest::of(b""))].into();
    assert_eq!(memory.plan(&pipeline)[4], "apart run: output `out` is missing");
}

#[test]
fn inputs_in_another_number_or_order_are_reasons() {
    let mut memory = Memory::default();
    memory.run(&pipeline("a:\nb:\nall: a b"));
    assert!(memory.run(&pipeline("b:\na:\nall: a b")).is_empty(), "the order of the file is not content");
    // `a` and `b` are of the same kind and configuration, so that they make the same.
    let mut different = pipeline("a:\nb:\nall: a b");
    config(&mut different, "b", json!(1));
    memory.run(&different);
    let mut swapped = pipeline("a:\nb:\nall: b a");
    config(&mut swapped, "b", json!(1));
    assert_eq!(memory.plan(&swapped)[2], "all run: input `data` changed: its artifacts are in another order");
    let mut fewer = pipeline("a:\nb:\nall: b");
    config(&mut fewer, "b", json!(1));
    assert_eq!(memory.plan(&fewer)[2], "all run: input `data` changed: 1 artifacts, they were 2");
    let mut none = pipeline("a:\nb:\nall:");
    config(&mut none, "all", json!({}));
    none.stages.get_mut("all").unwrap().declaration = &FAKE_2;
    assert_eq!(memory.plan(&none)[2], "all run: kind `fake` changed from version 1 to 2; input `data` is gone");
}

#[test]
fn an_artifact_that_stands_as_a_file_is_another_input_than_the_same_as_a_folder() {
    let mut memory = Memory::default();
    let folder = pipeline("a:\nb: a");
    let mut file = folder.clone();
    file.stages.get_mut("b").unwrap().inputs.get_mut("data").unwrap()[0].form = Form::File;
    memory.run(&folder);
    assert_eq!(memory.plan(&file), ["a hit", "b run: `inputs.data` is new: \"file\""]);
    memory.run(&file);
    assert_eq!(memory.plan(&file), ["a hit", "b hit"]);
    assert_eq!(memory.plan(&folder), ["a hit", "b hit"]);
}

#[test]
fn the_users_files_stand_by_content_and_not_by_place() {
    let mut memory = Memory::default();
    let mut pipeline = pipeline("corpus:");
    let at = |pipeline: &mut Pipeline, path: &str| {
        let spec = pipeline.stages.get_mut("corpus").unwrap();
        spec.config = json!({ "source": format!("file://{path}"), "format": "jsonl" });
        spec.user_files = vec![UserFile { field: "source".to_owned(), path: path.into() }];
    };
    let file = |name: &str, content: &str| FileIdentity {
        name: name.to_owned(),
        folder: false,
        digest: Digest::of(content.as_bytes()),
    };
    at(&mut pipeline, "data/chat.jsonl");
    memory.externals.insert(&name("corpus"), "source", file("chat.jsonl", "1"));
    memory.run(&pipeline);
    at(&mut pipeline, "/moved/chat.jsonl");
    assert_eq!(memory.plan(&pipeline), ["corpus hit"]);
    memory.externals.insert(&name("corpus"), "source", file("chat.jsonl", "2"));
    assert_eq!(memory.plan(&pipeline), ["corpus run: the file `chat.jsonl` of `source` changed"]);
    memory.externals.insert(&name("corpus"), "source", file("other.jsonl", "1"));
    assert_eq!(memory.plan(&pipeline), ["corpus run: `source` names `other.jsonl` instead of `chat.jsonl`"]);
    memory.externals = Externals::default();
    assert_eq!(
        memory.plan(&pipeline),
        ["corpus run: `source` is new: \"file:///moved/chat.jsonl\"; `source` no longer names a file"]
    );
}

#[test]
fn a_declared_variable_counts_and_its_value_is_shown_nowhere() {
    let mut pipeline = pipeline("a:");
    pipeline.stages.get_mut("a").unwrap().environment = vec!["TOKEN".to_owned()];
    let temp = tempfile::tempdir().unwrap();
    let files = UserFiles::new(&Home::open(temp.path()).unwrap());
    let selected = [name("a")].into();
    let mut memory = Memory::default();
    let mut reasons = |value: Option<&str>| {
        let variable = |name: &str| value.filter(|_| name == "TOKEN").map(Into::into);
        memory.externals = Externals::identify(&pipeline, &selected, &files, &Pins::default(), variable).unwrap();
        let plan = memory.plan(&pipeline);
        memory.run(&pipeline);
        plan
    };
    assert_eq!(reasons(None), ["a run: never run"]);
    assert_eq!(reasons(None), ["a hit"]);
    assert_eq!(reasons(Some("secret-1")), ["a run: the environment variable `TOKEN` is now set"]);
    assert_eq!(reasons(Some("secret-2")), ["a run: the environment variable `TOKEN` changed"]);
    assert_eq!(reasons(Some("secret-1")), ["a hit"]);
    assert_eq!(reasons(Some("")), ["a run: the environment variable `TOKEN` changed"]);
    let record = format!("{:?}", memory.last(&name("a")));
    assert!(!record.contains("secret"), "{record}");
}

#[test]
fn of_a_folder_the_files_that_changed_are_named() {
    let mut memory = Memory::default();
    let pipeline = pipeline("corpus:");
    let folder = |files: &[(&str, &str)]| {
        let entry = |(path, text): &(&str, &str)| crate::cache::Entry {
            path: (*path).to_owned(),
            digest: Digest::of(text.as_bytes()),
            size: 1,
            executable: false,
        };
        Manifest::new(files.iter().map(entry).collect())
    };
    let (one, two) = (folder(&[("a", "1"), ("b", "1")]), folder(&[("a", "1"), ("b", "2"), ("c", "1")]));
    let identity =
        |manifest: &Manifest| FileIdentity { name: "data".to_owned(), folder: true, digest: manifest.digest() };
    memory.externals.insert(&name("corpus"), "source", identity(&one));
    memory.run(&pipeline);
    memory.externals.insert(&name("corpus"), "source", identity(&two));
    assert_eq!(memory.plan(&pipeline), ["corpus run: the folder `data` of `source` changed"], "no more is known");
    for manifest in [one, two] {
        memory.folders.insert(manifest.digest(), manifest);
    }
    assert_eq!(
        memory.plan(&pipeline),
        ["corpus run: the folder `data` of `source` changed: `b` changed, `c` is new (2 of 3 files)"]
    );
}

#[test]
fn files_that_are_missing_are_shown_all_at_once() {
    let temp = tempfile::tempdir().unwrap();
    let mut pipeline = pipeline("a:\nb:\nunused:");
    pipeline.folder = temp.path().to_owned();
    for (stage, path) in [("a", "no.jsonl"), ("b", "neither.jsonl"), ("unused", "nor.jsonl")] {
        pipeline.stages.get_mut(stage).unwrap().user_files =
            vec![UserFile { field: "source".to_owned(), path: path.into() }];
    }
    let files = UserFiles::new(&Home::open(temp.path().join("home")).unwrap());
    let selected: indexmap::IndexSet<StageName> = [name("a"), name("b")].into();
    let problems = Externals::identify(&pipeline, &selected, &files, &Pins::default(), |_| None).unwrap_err().to_json();
    let lines: Vec<_> = problems.as_array().unwrap().iter().map(|problem| problem["line"].as_u64().unwrap()).collect();
    assert_eq!(lines, [1, 2]);
    assert!(problems[0]["message"].as_str().unwrap().contains("no.jsonl` does not exist"));
    assert!(!temp.path().join("home").exists(), "a plan makes no home");
}

#[test]
fn a_plan_is_json_that_machines_can_read() {
    let (memory, pipeline) = (Memory::default(), pipeline("a:\nb: a"));
    let graph = Graph::new(&pipeline).unwrap();
    let plan = Plan::new(&pipeline, &graph, &Request::default().select(&graph).unwrap(), &memory.externals, &memory);
    let key = plan.stages[0].key.unwrap();
    assert_eq!(
        serde_json::to_value(&plan).unwrap(),
        json!({ "stages": [
            { "stage": "a", "kind": "fake", "key": key, "action": "run", "reasons": [{ "reason": "never_run" }] },
            { "stage": "b", "kind": "fake", "key": null, "action": "run",
              "reasons": [{ "reason": "never_run" }, { "reason": "upstream", "stage": "a" }] },
        ] })
    );
    assert!(!plan.is_up_to_date());
}

#[test]
fn a_chain_of_ten_thousand_stages_is_planned_and_run() {
    let links = (1..10_000).map(|i| format!("s{i}: s{}\n", i - 1));
    let pipeline = pipeline(&std::iter::once("s0:\n".to_owned()).chain(links).collect::<String>());
    let mut memory = Memory::default();
    assert_eq!(memory.plan(&pipeline).len(), 10_000);
    assert_eq!(memory.run(&pipeline).len(), 10_000);
    assert!(memory.plan(&pipeline).iter().all(|line| line.ends_with("hit")));
}
