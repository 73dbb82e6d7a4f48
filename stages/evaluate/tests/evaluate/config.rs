//! The configuration: defaults, and what is refused.

use std::collections::BTreeSet;

use pipe_stage::{Problems, Validate};
use serde_json::json;
use stage_evaluate::Config;

#[test]
fn defaults() {
    let config: Config = serde_json::from_value(json!({})).unwrap();
    assert_eq!(
        serde_json::to_value(&config).unwrap(),
        json!({
            "bf16": false, "load_in_8bit": false, "tf32": false, "max_tokens_per_pass": 4096, "per_sample": false,
            "prompts": [], "max_new_tokens": 64,
        })
    );
}

/// Every field decides the report.
#[test]
fn no_field_is_execution_only() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    for (name, field) in schema["properties"].as_object().unwrap() {
        assert!(field.get(pipe_stage::EXECUTION_ONLY).is_none(), "{name}");
        assert!(field["description"].is_string(), "{name}");
    }
}

#[test]
fn every_problem_is_reported_at_its_field() {
    let wrong = json!({ "max_tokens_per_pass": 0, "max_new_tokens": 0, "prompts": ["fine", " "] });
    let config: Config = serde_json::from_value(wrong).unwrap();
    let mut problems = Problems::default();
    config.validate(&BTreeSet::new(), &mut problems);
    let found: Vec<(String, String)> =
        problems.into_inner().into_iter().map(|(path, message, _)| (path, message)).collect();
    assert_eq!(found.len(), 3);
    assert!(found.contains(&("prompts".to_owned(), "prompt 2 is empty".to_owned())), "{found:?}");
}
