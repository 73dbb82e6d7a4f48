//! The field `env`: environment variables that are passed on or set.

use std::{collections::BTreeMap, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, MapAccess, SeqAccess, Visitor},
};

/// Variables by name, sorted. Those without a value are passed on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub(crate) struct Env(BTreeMap<String, Option<String>>);

impl Env {
    /// The names of those that are passed on from the environment of `pipe`.
    pub(crate) fn inherited(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter(|(_, value)| value.is_none()).map(|(name, _)| name.as_str())
    }

    /// Those that are set.
    pub(crate) fn set(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().filter_map(|(name, value)| Some((name.as_str(), value.as_deref()?)))
    }

    fn add<E: de::Error>(&mut self, name: String, value: Option<String>) -> Result<(), E> {
        check::<E>(&name)?;
        if self.0.contains_key(&name) {
            return Err(E::custom(format!("the variable `{name}` is named twice")));
        }
        self.0.insert(name, value);
        Ok(())
    }
}

fn check<E: de::Error>(name: &str) -> Result<(), E> {
    if let Some((name, value)) = name.split_once('=') {
        return Err(E::custom(format!("write `{{ {name}: \"{value}\" }}` to set the variable `{name}`")));
    }
    let letters = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if !letters || name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        return Err(E::custom(format!("`{name}` is no name for a variable: use letters, digits and `_`")));
    }
    if ["TMPDIR", "CUDA_VISIBLE_DEVICES"].contains(&name) || name.starts_with("PIPE_") {
        return Err(E::custom(format!("`{name}` is set by pipe")));
    }
    Ok(())
}

impl<'de> Deserialize<'de> for Env {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Variables)
    }
}

struct Variables;

impl<'de> Visitor<'de> for Variables {
    type Value = Env;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a list of names, or a mapping of names to values")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Env, A::Error> {
        let mut env = Env::default();
        while let Some(Item(variables)) = items.next_element()? {
            for (name, value) in variables {
                env.add::<A::Error>(name, value)?;
            }
        }
        Ok(env)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Env, A::Error> {
        let mut env = Env::default();
        while let Some((name, value)) = entries.next_entry()? {
            env.add::<A::Error>(name, value)?;
        }
        Ok(env)
    }

    fn visit_unit<E: de::Error>(self) -> Result<Env, E> {
        Ok(Env::default())
    }
}

/// An item of a list: a name, or a mapping of names to values.
struct Item(Vec<(String, Option<String>)>);

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;

        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Item;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("the name of a variable, or `{ NAME: VALUE }`")
            }

            fn visit_str<E: de::Error>(self, name: &str) -> Result<Item, E> {
                check::<E>(name)?;
                Ok(Item(vec![(name.to_owned(), None)]))
            }

            fn visit_unit<E: de::Error>(self) -> Result<Item, E> {
                Ok(Item(Vec::new()))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Item, A::Error> {
                let mut variables = Vec::new();
                while let Some((name, value)) = entries.next_entry::<String, Option<String>>()? {
                    check::<A::Error>(&name)?;
                    variables.push((name, value));
                }
                Ok(Item(variables))
            }
        }

        deserializer.deserialize_any(OneOrMore)
    }
}

impl JsonSchema for Env {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Env".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let values = json_schema!({ "type": "object", "additionalProperties": { "type": ["string", "number", "boolean", "null"] } });
        json_schema!({
            "anyOf": [{ "type": "array", "items": { "anyOf": [{ "type": "string", "minLength": 1 }, values] } }, values],
        })
    }
}
