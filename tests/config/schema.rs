//! The generated schema, and the fields that stand in no key.

use std::{fs, path::Path};

use pipe::{
    config::{canonical, execution_only_fields, schema},
    registry::KINDS,
};
use serde_json::json;

#[test]
fn the_schema_in_the_repository_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas/pipeline.json");
    let written = fs::read_to_string(path).unwrap();
    let generated = serde_json::to_string_pretty(&schema(KINDS)).unwrap() + "\n";
    assert!(written == generated, "schemas/pipeline.json is out of date: pipe schema > schemas/pipeline.json");
}

#[test]
fn the_schema_knows_every_kind_its_inputs_and_its_fields() {
    let schema = schema(KINDS);
    for declaration in KINDS {
        let stage = &schema["$defs"][declaration.kind];
        assert_eq!(stage["properties"]["kind"]["const"], declaration.kind);
        assert_eq!(stage["properties"]["inputs"]["additionalProperties"].is_object(), declaration.open_inputs);
        for port in declaration.inputs {
            assert_eq!(stage["properties"]["inputs"]["properties"][port.name]["description"], port.holds);
        }
        let with = &schema["$defs"][format!("{}.with", declaration.kind)];
        for (name, field) in with["properties"].as_object().unwrap() {
            let described = field["description"].as_str().is_some_and(|text| !text.is_empty());
            assert!(described, "{}: the field `{name}` has no doc comment", declaration.kind);
        }
        assert_eq!(with["additionalProperties"], false, "{}: deny_unknown_fields is missing", declaration.kind);
    }
}

#[test]
fn every_reference_of_the_schema_leads_somewhere() {
    fn check(value: &serde_json::Value, root: &serde_json::Value) {
        if let Some(target) = value.get("$ref").and_then(|target| target.as_str()) {
            assert!(root.pointer(target.trim_start_matches('#')).is_some(), "{target}");
        }
        match value {
            serde_json::Value::Object(object) => object.values().for_each(|value| check(value, root)),
            serde_json::Value::Array(items) => items.iter().for_each(|item| check(item, root)),
            _ => {}
        }
    }
    let schema = schema(KINDS);
    check(&schema, &schema);
}

/// Marking a field wrongly changes what is rerun, so the whole list stands here. Everything else is semantic.
#[test]
fn execution_only_fields_are_these() {
    let listed: Vec<_> = KINDS
        .iter()
        .flat_map(|declaration| {
            execution_only_fields(declaration).into_iter().map(|field| format!("{}.{field}", declaration.kind))
        })
        .collect();
    insta::assert_snapshot!(listed.join("\n"));
}

#[test]
fn canonical_configurations_lack_exactly_those() {
    let tokenize = KINDS.iter().find(|declaration| declaration.kind == "tokenize").unwrap();
    let config = json!({ "max_length": 384, "num_proc": 4, "batch_size": 8, "loss_on": "all" });
    assert_eq!(canonical(&config, tokenize), json!({ "max_length": 384, "loss_on": "all" }));
}
