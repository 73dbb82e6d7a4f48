//! Tests of the graph, and the pipelines that other tests work with.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use pipe_stage::{Declaration, Form, Kind, Output, Port, Problems, Resources, Validate};
use pipe_yaml::{Node, Span, Value};
use serde::{Deserialize, Serialize};

use super::*;
use crate::config::{InputRef, Source, StageSpec};

/// A kind for tests, in several versions.
struct Fake<const VERSION: u32>;

/// Its configuration, of which the tests give JSON.
#[derive(Deserialize, Serialize, schemars::JsonSchema)]
struct Config {
    /// Guides only the execution.
    #[schemars(extend("x-execution-only" = true))]
    threads: u32,
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, _problems: &mut Problems) {}
}

impl<const V: u32> Kind for Fake<V> {
    type Config = Config;
    const KIND: &'static str = "fake";
    const VERSION: u32 = V;
    const SUMMARY: &'static str = "does nothing";
    const INPUTS: &'static [Port] = &[Port::optional("data", "anything").list()];
}

/// A kind for tests.
pub(crate) static FAKE: Declaration = Declaration::of::<Fake<1>>();
/// Its next version.
pub(crate) static FAKE_2: Declaration = Declaration::of::<Fake<2>>();

pub(crate) fn name(text: &str) -> StageName {
    StageName::new(text).unwrap()
}

/// A pipeline of fake stages, from lines like `c: a b.train`. Spans are offsets in that text.
pub(crate) fn pipeline(text: &str) -> Pipeline {
    let mut offset = 0;
    let mut stages = indexmap::IndexMap::new();
    for line in text.lines() {
        let (stage, sources) = line.split_once(':').unwrap();
        let span = |part: &str| {
            let start = offset + (part.as_ptr() as usize - line.as_ptr() as usize);
            Span { start, end: start + part.len() }
        };
        let inputs: Vec<InputRef> = sources
            .split_whitespace()
            .map(|source| {
                let (stage, output) = source.split_once('.').unwrap_or((source, "out"));
                InputRef { stage: name(stage), output: output.to_owned(), form: Form::Folder, span: span(source) }
            })
            .collect();
        let spec = StageSpec {
            name: name(stage),
            declaration: &FAKE,
            config: serde_json::json!({}),
            user_files: Vec::new(),
            references: Vec::new(),
            file_spans: BTreeMap::new(),
            outputs: FAKE.outputs.iter().map(|name| Output::folder(name)).collect(),
            environment: Vec::new(),
            command: None,
            inputs: if inputs.is_empty() { [].into() } else { [("data".to_owned(), inputs)].into() },
            resources: Resources::default(),
            retries: 0,
            timeout: None,
            checkout: BTreeMap::new(),
            span: span(stage),
            with: Node { span: span(stage), value: Value::Mapping(Vec::new()) },
        };
        stages.insert(name(stage), spec);
        offset += line.len() + 1;
    }
    let source = Arc::new(Source::new("pipeline.yaml", text));
    Pipeline { name: "test".to_owned(), folder: PathBuf::from("/project"), source, stages }
}

fn order(text: &str) -> String {
    let graph = Graph::new(&pipeline(text)).unwrap_or_else(|error| panic!("{error}"));
    graph.order().map(StageName::as_str).collect::<Vec<_>>().join(" ")
}

/// `line:column message` of each problem.
fn cycles(text: &str) -> Vec<String> {
    let problems = Graph::new(&pipeline(text)).unwrap_err().to_json();
    let show = |problem: &serde_json::Value| {
        format!("{}:{} {}", problem["line"], problem["column"], problem["message"].as_str().unwrap())
    };
    problems.as_array().unwrap().iter().map(show).collect()
}

#[test]
fn stages_follow_what_they_take_from_and_else_the_file() {
    assert_eq!(order("a:\nb:\nc:"), "a b c");
    assert_eq!(order("c: b\nb: a\na:"), "a b c");
    assert_eq!(order("z:\nlate: x z\nx: z\ny:"), "z x late y");
    assert_eq!(order("parts:\nuse: parts.train parts.held_out parts"), "parts use");
    assert_eq!(order(""), "");
}

#[test]
fn a_cycle_is_a_path_shown_where_it_closes() {
    assert_eq!(cycles("a: c\nb: a\nc: b"), ["1:4 these stages wait for each other: `a` -> `b` -> `c` -> `a`"]);
    assert_eq!(cycles("a: a"), ["1:4 these stages wait for each other: `a` -> `a`"]);
}

#[test]
fn what_hangs_on_a_cycle_is_not_blamed_for_it() {
    let text = "before:\nhanging: y\nx: before y\ny: x\nafter: hanging";
    assert_eq!(cycles(text), ["3:11 these stages wait for each other: `x` -> `y` -> `x`"]);
}

#[test]
fn all_cycles_are_shown_at_once() {
    let text = "a: b\nb: a\nc: b d\nd: c";
    assert_eq!(
        cycles(text),
        [
            "1:4 these stages wait for each other: `a` -> `b` -> `a`",
            "3:6 these stages wait for each other: `c` -> `d` -> `c`"
        ]
    );
}

#[test]
fn a_selection_is_the_targets_and_what_they_need() {
    let graph = Graph::new(&pipeline("d: b c\nb: a\nc: a\na:\nother: a")).unwrap();
    let needed = |targets: &[&str]| {
        let targets: Vec<StageName> = targets.iter().map(|target| name(target)).collect();
        graph.needed_for(&targets).iter().map(StageName::as_str).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(needed(&["d"]), "a b c d");
    assert_eq!(needed(&["other", "b"]), "a b other");
    assert_eq!(needed(&[]), "");
    assert_eq!(graph.makers(&name("d")), [&name("b"), &name("c")]);
    assert_eq!(graph.takers(&name("a")), [&name("b"), &name("c"), &name("other")]);
}

#[test]
fn long_chains_and_long_cycles_need_no_stack() {
    let chain = |first: &str| {
        let links = (1..10_000).map(|i| format!("s{i}: s{}\n", i - 1));
        std::iter::once(format!("s0: {first}\n")).chain(links).collect::<String>()
    };
    let graph = Graph::new(&pipeline(&chain(""))).unwrap();
    assert_eq!(graph.order().len(), 10_000);
    assert_eq!(graph.needed_for([&name("s9999")]).len(), 10_000);
    assert_eq!(cycles(&chain("s9999")).len(), 1);
    let pairs: String = (0..5000).map(|i| format!("a{i}: b{i}\nb{i}: a{i}\n")).collect();
    assert_eq!(cycles(&pairs).len(), 5000);
}
