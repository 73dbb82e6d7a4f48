//! The error that serde carries through a deserialisation: what is wrong, and with which node.

use std::fmt;

use serde::de::{Expected, Unexpected};

use crate::{Node, Span, unknown_name_help};

/// One failure of one attempt.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) message: String,
    pub(crate) help: Option<String>,
    pub(crate) cause: Cause,
    pub(crate) place: Place,
}

/// What an attempt failed of, as far as recovery treats it differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cause {
    /// The node is of the wrong type.
    Type,
    /// A struct lacks this field.
    Missing(&'static str),
    /// A `Deserialize` implementation refused the value.
    Custom,
}

/// Where an attempt failed.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place {
    /// Not known yet: some caller knows.
    Unknown,
    /// At this node.
    Node(*const Node, Span),
    /// In a value that stands in for one that was reported already.
    Hole,
}

impl Fault {
    pub(crate) fn wrong_type(message: String, help: Option<String>) -> Self {
        Self { message, help, cause: Cause::Type, place: Place::Unknown }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}

impl serde::de::Error for Fault {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), help: None, cause: Cause::Custom, place: Place::Unknown }
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match found {
            Unexpected::Bool(value) => format!("`{value}`"),
            Unexpected::Unsigned(value) => format!("`{value}`"),
            Unexpected::Signed(value) => format!("`{value}`"),
            Unexpected::Float(value) => format!("`{value}`"),
            Unexpected::Unit => "nothing".to_owned(),
            Unexpected::Seq => "a list".to_owned(),
            Unexpected::Map => "a mapping".to_owned(),
            other => other.to_string(),
        };
        Self::wrong_type(format!("expected {expected}, found {found}"), None)
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::wrong_type(format!("unknown value `{variant}`"), unknown_name_help(variant, expected.iter().copied()))
    }

    fn missing_field(field: &'static str) -> Self {
        Self {
            message: format!("missing field `{field}`"),
            help: None,
            cause: Cause::Missing(field),
            place: Place::Unknown,
        }
    }

    fn duplicate_field(field: &'static str) -> Self {
        Self::wrong_type(format!("the field `{field}` is given under two of its names"), None)
    }
}
