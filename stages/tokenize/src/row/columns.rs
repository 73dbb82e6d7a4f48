//! What the data calls the fields that shapes want.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use pipe_records::Record;
use serde_json::Value;

/// The columns that stand for fields.
#[derive(Debug, Default)]
pub(crate) struct Columns(Vec<Column>);

#[derive(Debug)]
struct Column {
    field: String,
    name: String,
    /// Whether any row had it.
    seen: AtomicBool,
}

impl Columns {
    pub(super) fn new(columns: &BTreeMap<String, String>) -> Self {
        let column = |(field, name): (&String, &String)| Column {
            field: field.clone(),
            name: name.clone(),
            seen: AtomicBool::new(false),
        };
        Self(columns.iter().map(column).collect())
    }

    /// The value for each field; null where the row has no such column.
    pub(super) fn find(&self, record: &Record) -> Vec<(&str, Value)> {
        let find = |column: &Column| find(record, &column.name).filter(|value| !value.is_null()).cloned();
        let named = self.0.iter().map(|column| {
            let value = find(column);
            if value.is_some() {
                column.seen.store(true, Ordering::Relaxed);
            }
            (column.field.as_str(), value.unwrap_or_default())
        });
        named.collect()
    }

    /// The fields and the columns for them.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|column| (column.field.as_str(), column.name.as_str()))
    }

    /// The first field whose column no row had, with that column.
    pub(crate) fn never_seen(&self) -> Option<(&str, &str)> {
        let column = self.0.iter().find(|column| !column.seen.load(Ordering::Relaxed))?;
        Some((&column.field, &column.name))
    }
}

/// The column of this name, else what dots lead to: `answers.text.0`.
fn find<'a>(record: &'a Record, name: &str) -> Option<&'a Value> {
    if let Some(value) = record.get(name) {
        return Some(value);
    }
    let mut parts = name.split('.');
    let first = record.get(parts.next()?)?;
    parts.try_fold(first, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        value => value.get(part),
    })
}
