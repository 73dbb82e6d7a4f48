//! A path below the folder that a command runs in.

use pipe_stage::manifest::is_storable;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// A relative path that does not leave its folder; that of a folder may end in `/`. An empty one is an error, which
/// [`super::Config`] reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Place(String);

/// Text that is no such path.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is no path here: it must be relative and must not leave its folder")]
pub(crate) struct InvalidPlace(String);

impl Place {
    /// As it is written.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// Without the `/` behind it.
    pub(crate) fn path(&self) -> &str {
        self.0.strip_suffix('/').unwrap_or(&self.0)
    }

    /// Whether it ends in `/`.
    pub(crate) fn is_folder(&self) -> bool {
        self.0.ends_with('/')
    }
}

impl TryFrom<String> for Place {
    type Error = InvalidPlace;

    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        let plain = text.trim_start_matches("./");
        let path = plain.strip_suffix('/').unwrap_or(plain);
        if is_storable(path) || text.is_empty() { Ok(Self(plain.to_owned())) } else { Err(InvalidPlace(text)) }
    }
}

impl From<Place> for String {
    fn from(place: Place) -> Self {
        place.0
    }
}

impl JsonSchema for Place {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Place".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "minLength": 1 })
    }
}
