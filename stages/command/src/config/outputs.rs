//! The field `outputs`: what a command leaves, by name.

use std::fmt;

use indexmap::IndexMap;
use pipe_stage::name;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, Error as _, MapAccess, SeqAccess, Visitor},
};

use super::{Place, base_name};

/// The name of an only output.
const ONLY: &str = "out";

/// Names and paths, in the order of the pipeline. None is an error, which [`super::Config`] reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Outputs(IndexMap<String, Place>);

impl Outputs {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.0.iter().map(|(name, path)| (name.as_str(), path))
    }
}

/// Names for the paths of a list.
fn named<E: de::Error>(paths: Vec<Place>) -> Result<Outputs, E> {
    let count = paths.len();
    let mut outputs = IndexMap::with_capacity(count);
    for (index, path) in paths.into_iter().enumerate() {
        if path.as_str().is_empty() {
            outputs.insert(index.to_string(), path);
            continue;
        }
        let file = base_name(path.path());
        let name = if count == 1 { ONLY } else { file.split('.').next().unwrap_or(file) };
        if name::check(name).is_err() {
            return Err(E::custom(format!("`{file}` gives no name for an output: write a mapping of names to paths")));
        }
        if let Some(other) = outputs.get(name) {
            let other: &Place = other;
            return Err(E::custom(format!(
                "`{}` and `{}` would both be called `{name}`: write a mapping of names to paths",
                other.as_str(),
                path.as_str()
            )));
        }
        outputs.insert(name.to_owned(), path);
    }
    Ok(Outputs(outputs))
}

impl<'de> Deserialize<'de> for Outputs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Paths)
    }
}

struct Paths;

impl<'de> Visitor<'de> for Paths {
    type Value = Outputs;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a path, a list of paths, or a mapping of names to paths")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Outputs, E> {
        named(vec![Place::try_from(text.to_owned()).map_err(E::custom)?])
    }

    fn visit_unit<E: de::Error>(self) -> Result<Outputs, E> {
        Ok(Outputs(IndexMap::new()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Outputs, A::Error> {
        let mut paths = Vec::new();
        while let Some(path) = items.next_element()? {
            paths.push(path);
        }
        named(paths)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Outputs, A::Error> {
        let mut outputs = IndexMap::new();
        while let Some((name, path)) = entries.next_entry::<String, Place>()? {
            if let Err(wrong) = name::check(&name) {
                return Err(A::Error::custom(format!("`{name}` is no name for an output: {wrong}")));
            }
            outputs.insert(name, path);
        }
        Ok(Outputs(outputs))
    }
}

impl JsonSchema for Outputs {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Outputs".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let path = json_schema!({ "type": "string", "minLength": 1 });
        json_schema!({
            "anyOf": [
                path,
                { "type": "array", "minItems": 1, "items": path },
                {
                    "type": "object",
                    "minProperties": 1,
                    "propertyNames": { "pattern": format!("^{}$", name::PATTERN) },
                    "additionalProperties": path,
                },
            ],
        })
    }
}
