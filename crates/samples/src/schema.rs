//! The columns of a samples file.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

/// The schema that every samples file is written with.
pub(crate) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("input_ids", DataType::List(element(DataType::UInt32)), false),
        Field::new("labels", DataType::List(element(DataType::Int32)), false),
        Field::new("length", DataType::UInt32, false),
    ]))
}

/// The inner field of a list. Parquet's specification calls it `element`.
pub(crate) fn element(data_type: DataType) -> Arc<Field> {
    Arc::new(Field::new("element", data_type, false))
}

/// Whether a file's columns can be read as samples: names and types in any order, nullability left to the rows.
pub(crate) fn is_samples(found: &Schema) -> bool {
    let list_of = |name: &str, wanted: DataType| {
        matches!(found.field_with_name(name).map(Field::data_type),
            Ok(DataType::List(inner)) if *inner.data_type() == wanted)
    };
    list_of("input_ids", DataType::UInt32)
        && list_of("labels", DataType::Int32)
        && found.field_with_name("length").is_ok_and(|field| *field.data_type() == DataType::UInt32)
}

/// A file's columns for an error message: `text (Utf8), id (Int64)`.
pub(crate) fn describe(found: &Schema) -> String {
    let columns: Vec<_> = found
        .fields()
        .iter()
        .map(|field| match field.data_type() {
            DataType::List(inner) => format!("{} (list of {})", field.name(), inner.data_type()),
            other => format!("{} ({other})", field.name()),
        })
        .collect();
    if columns.is_empty() { "no column".to_owned() } else { columns.join(", ") }
}
