//! Arrow columns to records.
//!
//! A null in a column or in a field of a struct stands for a field that is not there: a table has every field in every
//! row, and what a row did not have was filled with null. (TRL takes such fields out too.)

use std::sync::Arc;

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, StructArray},
    datatypes::{
        DataType, Float16Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type, Int64Type, UInt8Type,
        UInt16Type, UInt32Type, UInt64Type,
    },
    util::display::{ArrayFormatter, FormatOptions},
};
use serde_json::Value;

use crate::{Fault, ROW_LIMIT_BYTES, Reason, Record, batch::Chunk};

/// Rows of a table. Its columns may be shared with other chunks.
pub(crate) struct TableChunk {
    pub(crate) batch: RecordBatch,
    pub(crate) first_row: u64,
}

impl Chunk for TableChunk {
    fn records(self: Box<Self>, each: &mut dyn FnMut(u64, Result<Record, Fault>)) {
        let table = StructArray::from(self.batch);
        for row in 0..table.len() {
            let mut text_bytes = 0;
            let record = record(&table, row, &mut text_bytes);
            let record = if text_bytes > ROW_LIMIT_BYTES { Err(Fault::too_long()) } else { record };
            each(self.first_row + row as u64, record);
        }
    }
}

fn record(table: &StructArray, row: usize, text_bytes: &mut usize) -> Result<Record, Fault> {
    let mut record = Record::new();
    for (field, column) in table.fields().iter().zip(table.columns()) {
        let value = value(column, row, text_bytes).map_err(|fault| within(field.name(), fault))?;
        if !value.is_null() {
            record.insert(field.name().clone(), value);
        }
    }
    Ok(record)
}

fn within(name: &str, fault: Fault) -> Fault {
    Fault { detail: format!("`{name}`: {}", fault.detail), ..fault }
}

fn value(column: &ArrayRef, row: usize, text_bytes: &mut usize) -> Result<Value, Fault> {
    if column.is_null(row) {
        return Ok(Value::Null);
    }
    let mut text = |text: &str| {
        *text_bytes += text.len();
        // What is too long is refused as a whole; it need not be copied first.
        if text.len() > ROW_LIMIT_BYTES { Value::Null } else { Value::from(text) }
    };
    Ok(match column.data_type() {
        DataType::Null => Value::Null,
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int8 => column.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => column.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => column.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => column.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => column.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => column.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float16 => f32::from(column.as_primitive::<Float16Type>().value(row)).into(),
        DataType::Float32 => column.as_primitive::<Float32Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Utf8 => text(column.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(column.as_string::<i64>().value(row)),
        DataType::Utf8View => text(column.as_string_view().value(row)),
        DataType::Binary => text(utf8(column.as_binary::<i32>().value(row))?),
        DataType::LargeBinary => text(utf8(column.as_binary::<i64>().value(row))?),
        DataType::BinaryView => text(utf8(column.as_binary_view().value(row))?),
        DataType::Dictionary(..) => {
            let dictionary = column.as_any_dictionary();
            let index = dictionary.keys().slice(row, 1);
            let index = arrow::compute::cast(&index, &DataType::UInt64).map_err(unknown)?;
            let index = usize::try_from(index.as_primitive::<UInt64Type>().value(0)).unwrap_or(usize::MAX);
            if index >= dictionary.values().len() {
                return Err(Reason::UnknownType.because("a key that is not in the dictionary"));
            }
            value(dictionary.values(), index, text_bytes)?
        }
        DataType::List(_) => list(&column.as_list::<i32>().value(row), text_bytes)?,
        DataType::LargeList(_) => list(&column.as_list::<i64>().value(row), text_bytes)?,
        DataType::FixedSizeList(..) => list(&column.as_fixed_size_list().value(row), text_bytes)?,
        DataType::ListView(_) => list(&column.as_list_view::<i32>().value(row), text_bytes)?,
        DataType::LargeListView(_) => list(&column.as_list_view::<i64>().value(row), text_bytes)?,
        DataType::Struct(_) => Value::Object(record(column.as_struct(), row, text_bytes)?),
        DataType::Map(..) => {
            let entries = column.as_map().value(row);
            let mut object = Record::new();
            for entry in 0..entries.len() {
                let Value::String(key) = value(entries.column(0), entry, text_bytes)? else {
                    return Err(Reason::UnknownType.because("a map whose keys are no text"));
                };
                object.insert(key, value(entries.column(1), entry, text_bytes)?);
            }
            Value::Object(object)
        }
        // Dates, times and decimals, as text.
        other if other.is_temporal() || matches!(other, DataType::Decimal128(..) | DataType::Decimal256(..)) => {
            let formatter = ArrayFormatter::try_new(column.as_ref(), &FormatOptions::default()).map_err(unknown)?;
            formatter.value(row).to_string().into()
        }
        other => return Err(Reason::UnknownType.because(format!("a column of type {other}, which no record can hold"))),
    })
}

fn list(items: &ArrayRef, text_bytes: &mut usize) -> Result<Value, Fault> {
    let items = Arc::clone(items);
    (0..items.len()).map(|index| value(&items, index, text_bytes)).collect::<Result<Vec<_>, _>>().map(Value::Array)
}

fn utf8(bytes: &[u8]) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        Reason::NotUtf8.because(format!("bytes that are not UTF-8 from byte {} on", error.valid_up_to() + 1))
    })
}

fn unknown(error: arrow::error::ArrowError) -> Fault {
    Reason::UnknownType.because(error.to_string())
}
