//! A file or folder of the project that a command needs.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::{Place, place::InvalidPlace};

/// Divides a path into the folder where it is found and the path that it keeps, as rsync's `--relative` does.
const DIVIDER: &str = "/./";

/// A path below the folder of the pipeline, or below another one: `FOLDER/./PATH` is found in FOLDER, and stands at PATH
/// for the command. Only PATH is part of the configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Script {
    folder: Option<String>,
    place: Place,
}

impl Script {
    /// Where it stands for the command.
    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    /// Where it is found.
    pub(crate) fn path(&self) -> String {
        let place = self.place.as_str();
        self.folder.as_ref().map_or_else(|| place.to_owned(), |folder| format!("{folder}{DIVIDER}{place}"))
    }
}

impl TryFrom<String> for Script {
    type Error = InvalidPlace;

    fn try_from(text: String) -> Result<Self, InvalidPlace> {
        let (folder, place) = match text.split_once(DIVIDER) {
            Some((folder, place)) => (Some(folder.to_owned()), place.to_owned()),
            None => (None, text),
        };
        Ok(Self { folder, place: Place::try_from(place)? })
    }
}

impl From<Script> for String {
    fn from(script: Script) -> Self {
        script.place.into()
    }
}

impl JsonSchema for Script {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Place::schema_name()
    }

    fn inline_schema() -> bool {
        Place::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Place::json_schema(generator)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    #[test]
    fn a_script_of_another_folder_keeps_the_path_behind_the_divider() {
        let read = |text: &str| Script::try_from(text.to_owned()).map(|script| (script.path(), String::from(script)));
        for (text, path, place) in [
            ("a.py", "a.py", "a.py"),
            ("./lib/", "lib/", "lib/"),
            ("../base/./lib/a.py", "../base/./lib/a.py", "lib/a.py"),
            ("/base/./a.py", "/base/./a.py", "a.py"),
        ] {
            assert_eq!(read(text).unwrap(), (path.to_owned(), place.to_owned()), "{text}");
        }
        for text in ["../a.py", "/a.py", "base/./../a.py", "base/.//a.py"] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
