//! Tests of explanations.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use serde_json::json;

use super::{
    super::tests::{Memory, config, example},
    *,
};
use crate::graph::tests::{name, pipeline};

fn explain(memory: &Memory, pipeline: &Pipeline, stage: &str) -> Explanation {
    let graph = Graph::new(pipeline).unwrap();
    Explanation::new(pipeline, &graph, &memory.externals, memory, &name(stage)).unwrap()
}

/// `stage (run): reasons` of every cause.
fn causes(explanation: &Explanation) -> Vec<String> {
    let run = |cause: &Cause| cause.run.as_ref().map_or("to run".to_owned(), |run| run.as_str()[16..19].to_owned());
    let line = |cause: &Cause| format!("{} ({}): {}", cause.stage, run(cause), cause.reasons.join("; "));
    explanation.causes.iter().map(line).collect()
}

#[test]
fn a_pipeline_that_never_ran_can_be_explained() {
    let explanation = explain(&Memory::default(), &example(), "adapter");
    assert_eq!((explanation.key, &explanation.last), (None, &None));
    assert_eq!(causes(&explanation), ["kept (to run): never run", "tokens (to run): never run"]);
    let fields: Vec<_> = explanation.ingredients.config.iter().map(|field| field.field.as_str()).collect();
    assert_eq!(fields, ["learning_rate", "lora.r", "lora.alpha", "bf16"]);
    let input = &explanation.ingredients.inputs[0];
    assert_eq!((input.input.as_str(), input.stage.as_str(), input.artifact), ("data", "kept", None));
}

#[test]
fn of_a_change_that_is_still_to_run_the_root_is_found_over_all_stages_between() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    memory.run_for(&pipeline, [&name("package")]);
    config(&mut pipeline, "tokens", json!({ "max_length": 512 }));
    let explanation = explain(&memory, &pipeline, "package");
    assert!(matches!(explanation.action, Action::Maybe { .. }), "{explanation:?}");
    assert_eq!(causes(&explanation), ["tokens (to run): `max_length` is new: 512"]);
    assert!(explanation.last.unwrap().made.is_some());
}

#[test]
fn of_an_input_that_changed_in_an_earlier_run_it_is_said_how_that_came_about() {
    let (mut memory, mut pipeline) = (Memory::default(), example());
    memory.run_for(&pipeline, [&name("package")]);
    memory.run_for(&pipeline, [&name("package")]);
    config(&mut pipeline, "tokens", json!({ "max_length": 512 }));
    memory.run_for(&pipeline, [&name("kept")]);
    let explanation = explain(&memory, &pipeline, "adapter");
    let Action::Run { reasons } = &explanation.action else { panic!("{explanation:?}") };
    assert!(reasons[0].to_string().starts_with("input `data` changed: `kept` made "), "{}", reasons[0]);
    let causes = causes(&explanation);
    assert_eq!(causes.len(), 2, "{causes:?}");
    assert!(causes[0].starts_with("kept (002): input `data` changed: `tokens` made "), "{causes:?}");
    assert_eq!(causes[1], "tokens (002): `max_length` is new: 512");
    let input = &explanation.ingredients.inputs[0];
    assert!(input.artifact.is_some() && input.made.as_ref().unwrap().run.as_str().contains("-002-"), "{input:?}");
}

#[test]
fn a_hit_has_no_causes_and_says_when_it_was_made() {
    let (mut memory, pipeline) = (Memory::default(), example());
    memory.run_for(&pipeline, [&name("package")]);
    let explanation = explain(&memory, &pipeline, "adapter");
    assert!(matches!(explanation.action, Action::Hit { .. }) && explanation.causes.is_empty());
    let last = explanation.last.unwrap();
    assert_eq!((Some(last.key), last.made.unwrap().reasons), (explanation.key, vec!["told".to_owned()]));
}

#[test]
fn what_only_guides_the_execution_is_told_apart() {
    let mut pipeline = pipeline("a:");
    config(&mut pipeline, "a", json!({ "threads": 4, "seed": 1, "empty": {} }));
    let ingredients = explain(&Memory::default(), &pipeline, "a").ingredients;
    let names = |fields: &[Field]| fields.iter().map(|field| field.field.clone()).collect::<Vec<_>>();
    assert_eq!(names(&ingredients.config), ["seed", "empty"]);
    assert_eq!(names(&ingredients.execution_only), ["threads"]);
}

#[test]
fn the_end_of_a_chain_of_ten_thousand_stages_is_explained() {
    let links = (1..10_000).map(|i| format!("s{i}: s{}\n", i - 1));
    let mut pipeline = pipeline(&std::iter::once("s0:\n".to_owned()).chain(links).collect::<String>());
    let mut memory = Memory::default();
    memory.run_for(&pipeline, [&name("s9999")]);
    config(&mut pipeline, "s0", json!({ "seed": 2 }));
    assert_eq!(causes(&explain(&memory, &pipeline, "s9999")), ["s0 (to run): `seed` is new: 2"]);
}
