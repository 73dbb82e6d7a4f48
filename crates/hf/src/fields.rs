//! Typed access to the fields of a JSON object, with errors that name file and field.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::Error;

/// An object of a JSON file.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    path: &'a Path,
    /// The names of the objects around this one, each with a dot behind it.
    prefix: &'a str,
    object: &'a Map<String, Value>,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(path: &'a Path, object: &'a Map<String, Value>) -> Self {
        Self { path, prefix: "", object }
    }

    /// The object in the field `name`, if the field is there and not null. `prefix` is `name` with a dot.
    pub(crate) fn object(&self, name: &str, prefix: &'a str) -> Result<Option<Self>, Error> {
        match self.object.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(object)) => Ok(Some(Self { path: self.path, prefix, object })),
            Some(other) => Err(self.wrong(name, format!("expected an object, found {other}"))),
        }
    }

    /// The raw value, null counted as absent.
    pub(crate) fn raw(&self, name: &str) -> Option<&'a Value> {
        self.object.get(name).filter(|value| !value.is_null())
    }

    /// The field `name` if it is there and not null.
    pub(crate) fn optional<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let Some(value) = self.raw(name) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|error| self.wrong(name, error.to_string()))
    }

    pub(crate) fn or<T: DeserializeOwned>(&self, name: &str, default: T) -> Result<T, Error> {
        Ok(self.optional(name)?.unwrap_or(default))
    }

    pub(crate) fn required<T: DeserializeOwned>(&self, name: &str) -> Result<T, Error> {
        self.optional(name)?.ok_or_else(|| self.wrong(name, "is missing"))
    }

    /// A required count of at least one.
    pub(crate) fn count(&self, name: &str) -> Result<usize, Error> {
        self.at_least_one(name, self.required(name)?)
    }

    pub(crate) fn optional_count(&self, name: &str) -> Result<Option<usize>, Error> {
        self.optional(name)?.map(|count| self.at_least_one(name, count)).transpose()
    }

    fn at_least_one(&self, name: &str, count: u32) -> Result<usize, Error> {
        if count == 0 {
            return Err(self.wrong(name, "must be at least 1"));
        }
        usize::try_from(count).map_err(|_| self.wrong(name, "is too large"))
    }

    /// An error about the field `name`.
    pub(crate) fn wrong(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Field { path: self.path.to_owned(), field: format!("{}{name}", self.prefix), problem: problem.into() }
    }
}

/// Reads a JSON file that must hold an object. The order of its fields is kept.
///
/// # Errors
/// If the file cannot be read or holds something else.
pub fn read_object(path: &Path) -> Result<Map<String, Value>, Error> {
    let text = std::fs::read(path).map_err(Error::read(path))?;
    serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// Writes `object` as Hugging Face libraries do: two spaces of indentation and a line break at the end.
///
/// # Errors
/// If the file cannot be written.
pub fn write_object(path: &Path, object: &Map<String, Value>) -> Result<(), Error> {
    let mut text = serde_json::to_vec_pretty(object).map_err(|source| Error::Json { path: path.to_owned(), source })?;
    text.push(b'\n');
    std::fs::write(path, text).map_err(Error::write(path))
}
