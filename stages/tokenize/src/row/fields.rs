//! The fields of a row by the names that shapes have for them, whatever the data calls its columns.

use std::mem;

use pipe_records::{Record, describe};
use serde_json::Value;

use super::{BadRow, Reason, columns::Columns};

/// A row, from which a shape takes what it wants.
pub(super) struct Fields<'a> {
    record: Record,
    /// What `columns` names, with the fields that it is for; null where this row has no such column.
    named: Vec<(&'a str, Value)>,
    /// The fields of `named` without a column.
    without_column: Vec<&'a str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(mut record: Record, columns: &'a Columns) -> Self {
        // Tables that were written as JSON have every column in every row.
        record.retain(|_, value| !value.is_null());
        let named = columns.find(&record);
        let without_column = named.iter().filter(|(_, value)| value.is_null()).map(|(field, _)| *field).collect();
        Self { record, named, without_column }
    }

    fn get(&self, field: &str) -> Option<&Value> {
        let named = self.named.iter().find(|(name, _)| *name == field);
        named.map_or_else(|| self.record.get(field), |(_, value)| Some(value)).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, field: &str) -> bool {
        self.get(field).is_some()
    }

    pub(super) fn is_list(&self, field: &str) -> bool {
        self.get(field).is_some_and(Value::is_array)
    }

    /// Takes the field's value out. Its name stays, for [`Fields::names`].
    fn take(&mut self, field: &str) -> Option<Value> {
        let named = self.named.iter_mut().find(|(name, _)| *name == field).map(|(_, value)| value);
        let value = named.or_else(|| self.record.get_mut(field))?;
        Some(mem::take(value)).filter(|value| !value.is_null())
    }

    /// The names that the data has.
    pub(super) fn names(&self) -> String {
        let names: Vec<_> = self.record.keys().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
    }

    /// The fields that `columns` names a column for which this row does not have.
    pub(super) fn without_column(&self) -> &[&'a str] {
        &self.without_column
    }

    /// Text that the row must have.
    pub(super) fn text(&mut self, field: &str) -> Result<String, BadRow> {
        self.optional_text(field)?.ok_or_else(|| self.missing(field))
    }

    /// Text with something in it.
    pub(super) fn filled_text(&mut self, field: &str) -> Result<String, BadRow> {
        let text = self.text(field)?;
        if text.trim().is_empty() { Err(Reason::Empty.because(format!("`{field}` is empty"))) } else { Ok(text) }
    }

    pub(super) fn optional_text(&mut self, field: &str) -> Result<Option<String>, BadRow> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(Reason::WrongType.because(format!("`{field}` is {}, not text", describe(&other)))),
        }
    }

    /// A list that the row must have, or text that holds one as JSON.
    pub(super) fn list(&mut self, field: &str) -> Result<Vec<Value>, BadRow> {
        self.optional_list(field)?.ok_or_else(|| self.missing(field))
    }

    /// A list with something in it.
    pub(super) fn filled_list(&mut self, field: &str) -> Result<Vec<Value>, BadRow> {
        let list = self.list(field)?;
        if list.is_empty() { Err(Reason::Empty.because(format!("`{field}` is empty"))) } else { Ok(list) }
    }

    pub(super) fn optional_list(&mut self, field: &str) -> Result<Option<Vec<Value>>, BadRow> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            // A table has no other way to say that there is no list.
            Some(Value::String(text)) if text.trim().is_empty() => Ok(None),
            Some(Value::String(text)) if holds_json(&text) => match parse(&text, field)? {
                Value::Array(list) => Ok(Some(list)),
                other => Err(Reason::WrongType.because(format!("`{field}` holds {}, not a list", describe(&other)))),
            },
            Some(other) => Err(Reason::WrongType.because(format!("`{field}` is {}, not a list", describe(&other)))),
        }
    }

    /// A look at a list, of which only text that holds one as JSON is replaced.
    pub(super) fn peek_list(&mut self, field: &str) -> Option<&[Value]> {
        if let Some(Value::String(text)) = self.get(field)
            && holds_json(text)
            && let Ok(list @ Value::Array(_)) = parse(text, field)
        {
            match self.named.iter_mut().find(|(name, _)| *name == field) {
                Some((_, value)) => *value = list,
                None => drop(self.record.insert(field.to_owned(), list)),
            }
        }
        self.get(field)?.as_array().map(Vec::as_slice)
    }

    pub(super) fn missing(&self, field: &str) -> BadRow {
        Reason::UnknownShape.because(format!("the row has no `{field}`; it has {}", self.names()))
    }
}

fn holds_json(text: &str) -> bool {
    text.trim_start().starts_with(['[', '{'])
}

fn parse(text: &str, field: &str) -> Result<Value, BadRow> {
    pipe_records::parse_json_text(text, &format!("`{field}`")).map_err(|fault| {
        let mut bad = BadRow::from(fault);
        if ["[{'", "{'", "['"].iter().any(|python| text.trim_start().starts_with(python)) {
            bad.detail.push_str("; it is written as Python prints it: write it with json.dumps");
        }
        bad
    })
}
