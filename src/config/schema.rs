//! The language of pipeline files as a JSON Schema, made of what the kinds declare; and which fields stand in keys.

use std::{
    collections::BTreeMap,
    iter::once,
    sync::{Arc, Mutex, PoisonError},
};

use pipe_stage::{Declaration, EXECUTION_ONLY, name};
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    extends,
    params::MATRIX,
    stage::{DURATION_PATTERN, MAX_RETRIES, ResourceFields},
};

/// The JSON Schema of pipeline files with the kinds of `registry`. The same registry always gives the same bytes.
///
/// Every field of `with` and `resources` may also be `${...}`, which takes the type of a parameter.
pub fn schema(registry: &[Declaration]) -> Value {
    let mut definitions = Map::new();
    definitions.insert("reference".to_owned(), reference());
    definitions.insert("open_input".to_owned(), open_input());
    definitions.insert("interpolation".to_owned(), interpolation());
    let resources = subschema("resources", |generator| generator.subschema_for::<ResourceFields>(), &mut definitions);
    definitions.insert("resources".to_owned(), resources);
    for (name, mut definition) in
        [("retries", retries()), ("timeout", timeout()), ("outputs", outputs()), (MATRIX, matrix())]
    {
        or_interpolation(&mut definition);
        definitions.insert(name.to_owned(), definition);
    }
    for declaration in registry {
        let with = subschema(declaration.kind, |generator| declaration.schema(generator), &mut definitions);
        definitions.insert(format!("{}.with", declaration.kind), with);
        definitions.insert(declaration.kind.to_owned(), stage(declaration));
    }
    let kinds: Vec<_> = registry.iter().map(|declaration| declaration.kind).collect();
    let name_pattern = format!("^{}(@.+)?$", name::PATTERN);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A pipeline of `pipe`",
        "type": "object",
        "anyOf": [{ "required": ["stages"] }, { "required": [extends::FIELD] }],
        // What is extended may say the rest.
        "if": { "not": { "required": [extends::FIELD] } },
        "then": { "properties": { "stages": { "additionalProperties": { "type": "object", "required": ["kind"] } } } },
        "additionalProperties": false,
        "properties": {
            "extends": extended(),
            "name": {
                "description": "The name of the pipeline, 1 to 128 characters. Default: the file's name without its extension.",
                "type": "string",
            },
            "params": {
                "description": "Values with names: `${name}` stands for one anywhere under `stages`, and `--set name=VALUE` overrides it.",
                "type": "object",
                "propertyNames": { "pattern": "^[^\\s\\d.{}$-][^\\s.{}$]*$" },
            },
            "stages": {
                "description": "The stages by name.",
                "type": "object",
                "minProperties": 1,
                "propertyNames": { "pattern": name_pattern },
                "additionalProperties": {
                    "type": ["object", "null"],
                    "properties": { "kind": { "enum": kinds } },
                    "allOf": registry.iter().map(if_kind).collect::<Vec<_>>(),
                },
            },
        },
        "$defs": definitions,
    })
}

/// The fields of a kind that must not change a byte of its output (dots between the parts: `lora.r`), sorted.
pub fn execution_only_fields(declaration: &Declaration) -> Vec<String> {
    let mut definitions = Map::new();
    let root = subschema("", |generator| declaration.schema(generator), &mut definitions);
    let mut fields = Vec::new();
    collect_marked(&root, &definitions, "", &mut fields);
    fields.sort_unstable();
    fields.dedup();
    fields
}

/// A resolved configuration without the fields that must not change a byte: what stands in a key.
pub fn canonical(config: &Value, declaration: &'static Declaration) -> Value {
    let mut config = config.clone();
    for field in known_execution_only(declaration).iter() {
        let (parents, last) =
            field.rsplit_once('.').map_or((None, field.as_str()), |(parents, last)| (Some(parents), last));
        let mut holder = Some(&mut config);
        for parent in parents.iter().flat_map(|parents| parents.split('.')) {
            holder = holder.and_then(|holder| holder.get_mut(parent));
        }
        if let Some(holder) = holder.and_then(Value::as_object_mut) {
            holder.shift_remove(last);
        }
    }
    config
}

/// [`execution_only_fields`], found once: to make a schema takes longer than all else that a key needs.
fn known_execution_only(declaration: &'static Declaration) -> Arc<[String]> {
    // By address: two registries may each have a kind of one name.
    static KNOWN: Mutex<BTreeMap<usize, Arc<[String]>>> = Mutex::new(BTreeMap::new());
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let fields = known.entry(std::ptr::from_ref(declaration).addr());
    Arc::clone(fields.or_insert_with(|| execution_only_fields(declaration).into()))
}

fn collect_marked(schema: &Value, definitions: &Map<String, Value>, path: &str, fields: &mut Vec<String>) {
    let target = schema.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(DEFINITIONS));
    if let Some(target) = target.and_then(|name| definitions.get(name)) {
        collect_marked(target, definitions, path, fields);
    }
    for alternative in schema.get("anyOf").and_then(Value::as_array).into_iter().flatten() {
        collect_marked(alternative, definitions, path, fields);
    }
    for (name, field) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        if field.get(EXECUTION_ONLY) == Some(&Value::Bool(true)) {
            fields.push(path);
        } else {
            collect_marked(field, definitions, &path, fields);
        }
    }
}

const DEFINITIONS: &str = "#/$defs/";

fn pointer(name: &str) -> Value {
    json!({ "$ref": format!("{DEFINITIONS}{name}") })
}

/// The schema of a Rust type. What it refers to is put under `owner.`, so that two kinds may each have a `Lora`.
fn subschema(
    owner: &str,
    make: impl FnOnce(&mut SchemaGenerator) -> schemars::Schema,
    definitions: &mut Map<String, Value>,
) -> Value {
    let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
    let root = make(&mut generator).to_value();
    let mut inner = generator.take_definitions(true);
    let root_name = root.get("$ref").and_then(Value::as_str).and_then(|name| name.strip_prefix(DEFINITIONS));
    let mut root = match root_name.and_then(|name| inner.shift_remove(name)) {
        Some(definition) => definition,
        None => root,
    };
    for schema in once(&mut root).chain(inner.values_mut()) {
        allow_interpolation(schema);
        finish(schema, owner);
    }
    definitions.extend(inner.into_iter().map(|(name, schema)| (prefixed(owner, &name), schema)));
    root
}

fn prefixed(owner: &str, name: &str) -> String {
    if owner.is_empty() { name.to_owned() } else { format!("{owner}.{name}") }
}

/// Puts references under `owner.`, and joins the lines of descriptions: they are broken where the Rust source is.
fn finish(schema: &mut Value, owner: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("$ref", Value::String(target)) => {
                        if let Some(name) = target.strip_prefix(DEFINITIONS).filter(|name| *name != "interpolation") {
                            *target = format!("{DEFINITIONS}{}", prefixed(owner, name));
                        }
                    }
                    ("description", Value::String(text)) => {
                        let paragraphs: Vec<_> = text.split("\n\n").map(|part| part.replace('\n', " ")).collect();
                        *text = paragraphs.join("\n\n");
                    }
                    (_, value) => finish(value, owner),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| finish(item, owner)),
        _ => {}
    }
}

/// Lets every field and item be `${...}` as well as what it is.
fn allow_interpolation(schema: &mut Value) {
    for keyword in ["properties", "items", "additionalProperties", "anyOf"] {
        match schema.get_mut(keyword) {
            Some(Value::Object(fields)) if keyword == "properties" => fields.values_mut().for_each(or_interpolation),
            Some(inner @ Value::Object(_)) => or_interpolation(inner),
            Some(Value::Array(alternatives)) => alternatives.iter_mut().for_each(allow_interpolation),
            _ => {}
        }
    }
}

fn or_interpolation(schema: &mut Value) {
    allow_interpolation(schema);
    let Some(object) = schema.as_object_mut() else { return };
    if takes_any_text(object) {
        return;
    }
    // What is said about the field as a whole stays outside, where editors look for it.
    let (outside, inside): (Map<_, _>, Map<_, _>) = std::mem::take(object).into_iter().partition(|(key, _)| {
        matches!(key.as_str(), "description" | "default" | "title" | "examples") || key.starts_with("x-")
    });
    *object = outside;
    let mut alternatives = match inside.get("anyOf") {
        Some(Value::Array(alternatives)) if inside.len() == 1 => alternatives.clone(),
        _ => vec![Value::Object(inside)],
    };
    alternatives.push(pointer("interpolation"));
    object.insert("anyOf".to_owned(), Value::Array(alternatives));
}

fn takes_any_text(schema: &Map<String, Value>) -> bool {
    let text = match schema.get("type") {
        Some(Value::String(name)) => name == "string",
        Some(Value::Array(names)) => names.iter().any(|name| name == "string"),
        // A schema without any demand.
        _ => !["$ref", "anyOf", "oneOf", "allOf", "enum", "const"].iter().any(|keyword| schema.contains_key(*keyword)),
    };
    text && !["enum", "const", "pattern", "minLength", "maxLength", "format"]
        .iter()
        .any(|limit| schema.contains_key(*limit))
}

fn interpolation() -> Value {
    json!({
        "description": "The value of a parameter: `${name}`, `${name.part}`, or a text with such in it.",
        "type": "string",
        "pattern": "\\$\\{[^}]+\\}",
    })
}

fn reference() -> Value {
    json!({
        "description": "A stage whose output is taken: STAGE, or STAGE.OUTPUT where a stage makes several. Of a stage with a matrix, STAGE[AXIS=VALUE] is those with that value.",
        "type": "string",
        "minLength": 1,
    })
}

fn open_input() -> Value {
    json!({
        "description": "What is taken: STAGE, STAGE.OUTPUT where a stage makes several, or file://PATH for a file or folder of yours. A stage with a matrix is a folder, in which each of its stages stands under its values; STAGE[AXIS=VALUE] is those with that value.",
        "type": "string",
        "minLength": 1,
    })
}

fn retries() -> Value {
    json!({
        "description": format!("How often the stage is tried again after a failure, 0 to {MAX_RETRIES}. Default 0."),
        "type": "integer",
        "minimum": 0,
        "maximum": MAX_RETRIES,
    })
}

fn timeout() -> Value {
    json!({
        "description": "After this long the stage is stopped and counts as failed: `90s`, `30m`, `2h30m`, `1d`. Default: never.",
        "type": "string",
        "pattern": DURATION_PATTERN,
        "minLength": 2,
    })
}

fn outputs() -> Value {
    json!({
        "description": "Where copies of the outputs are put once they are up to date: a path of one output, or a mapping of outputs to paths; relative to the pipeline file.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "object", "additionalProperties": { "type": "string", "minLength": 1 } },
        ],
    })
}

fn matrix() -> Value {
    let combinations = |what: &str| json!({ "description": what, "type": "array", "items": { "type": "object" } });
    json!({
        "description": "A stage for each combination of the values listed for each axis: `{ r: [8, 16] }` makes `STAGE@r=8` and `STAGE@r=16`, in which `${matrix.r}` is the value.",
        "type": "object",
        "minProperties": 1,
        "properties": {
            "exclude": combinations("Combinations to leave out, by the values of some axes."),
            "include": combinations("Combinations to add, with a value for every axis."),
        },
        "additionalProperties": { "anyOf": [{ "type": "array", "minItems": 1 }, pointer("interpolation")] },
    })
}

fn extended() -> Value {
    json!({
        "description": "The pipeline file that this one differs from, or several, each on top of the one before; relative to this file. Mappings are merged, other values replaced, and `~` takes a key away.",
        "anyOf": [
            { "type": "string", "minLength": 1 },
            { "type": "array", "minItems": 1, "items": { "type": "string", "minLength": 1 } },
        ],
    })
}

/// Only the schema of the stage's own kind speaks: of `oneOf`, a validator would recite what every kind misses.
fn if_kind(declaration: &Declaration) -> Value {
    let of_kind = json!({ "required": ["kind"], "properties": { "kind": { "const": declaration.kind } } });
    json!({ "if": of_kind, "then": pointer(declaration.kind) })
}

fn stage(declaration: &Declaration) -> Value {
    let needs_input = declaration.inputs.iter().any(|port| port.required);
    let mut properties = Map::new();
    properties.insert("kind".to_owned(), json!({ "const": declaration.kind, "description": declaration.summary }));
    properties.insert("with".to_owned(), pointer(&format!("{}.with", declaration.kind)));
    properties.insert("inputs".to_owned(), inputs(declaration));
    for field in ["resources", "retries", "timeout", "outputs", MATRIX] {
        properties.insert(field.to_owned(), pointer(field));
    }
    let made = match declaration.open_outputs {
        true => "those that `with` declares".to_owned(),
        false => declaration.outputs.join(", "),
    };
    json!({
        "description": format!("{}. Outputs: {made}.", declaration.summary.trim_end_matches('.')),
        "type": "object",
        "required": if needs_input { vec!["kind", "inputs"] } else { vec!["kind"] },
        "additionalProperties": false,
        "properties": properties,
    })
}

fn inputs(declaration: &Declaration) -> Value {
    let ports = declaration.inputs;
    let properties: Map<_, _> = ports
        .iter()
        .map(|port| {
            let schema = match port.list {
                true => {
                    let list = json!({ "type": "array", "minItems": 1, "items": pointer("reference") });
                    json!({ "description": port.holds, "anyOf": [pointer("reference"), list] })
                }
                false => json!({ "description": port.holds, "$ref": format!("{DEFINITIONS}reference") }),
            };
            (port.name.to_owned(), schema)
        })
        .collect();
    let required: Vec<_> = ports.iter().filter(|port| port.required).map(|port| port.name).collect();
    let others = match declaration.open_inputs {
        true => {
            let one = pointer("open_input");
            json!({ "anyOf": [one, { "type": "array", "minItems": 1, "items": one }] })
        }
        false => false.into(),
    };
    json!({ "type": "object", "required": required, "additionalProperties": others, "properties": properties })
}
