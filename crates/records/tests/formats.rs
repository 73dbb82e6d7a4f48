//! Files that the real libraries' formats are written in, made here, give the same records.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray, StructArray},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Fields},
    ipc::writer::{FileWriter, StreamWriter},
};
use parquet::arrow::ArrowWriter;
use pipe_records::{Limits, Options, Record, find, read};
use serde_json::{Value, json};

const ROWS: usize = 100;

/// Rows of which every third has no `note`.
fn rows() -> Vec<Value> {
    let row = |index: usize| {
        let messages = json!([{ "role": "user", "content": format!("问 {index}") }, { "role": "assistant" }]);
        match index % 3 {
            0 => json!({ "id": index, "messages": messages }),
            _ => json!({ "id": index, "note": format!("n{index}"), "messages": messages }),
        }
    };
    (0..ROWS).map(row).collect()
}

fn table() -> RecordBatch {
    let note = |index: usize| (!index.is_multiple_of(3)).then(|| format!("n{index}"));
    let roles: StringArray = (0..2 * ROWS).map(|index| Some(["user", "assistant"][index % 2])).collect();
    let contents: StringArray =
        (0..2 * ROWS).map(|index| (index % 2 == 0).then(|| format!("问 {}", index / 2))).collect();
    let fields =
        Fields::from(vec![Field::new("role", DataType::Utf8, true), Field::new("content", DataType::Utf8, true)]);
    let structs = StructArray::new(fields.clone(), vec![Arc::new(roles), Arc::new(contents)], None);
    let element = Arc::new(Field::new("element", DataType::Struct(fields), true));
    let messages = ListArray::new(element, OffsetBuffer::from_lengths(vec![2; ROWS]), Arc::new(structs), None);
    let columns: [(&str, ArrayRef); 3] = [
        ("id", Arc::new(Int64Array::from_iter_values(0..ROWS as i64))),
        ("note", Arc::new((0..ROWS).map(note).collect::<StringArray>())),
        ("messages", Arc::new(messages)),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

fn records(folder: &Path) -> Vec<Record> {
    let options = Options::default();
    let found = find([folder].into_iter(), &options).unwrap();
    let mut records = Vec::new();
    let mut numbers = Vec::new();
    read(&found.files, &options, Limits { rows: 7, ..Limits::default() }, |batch| {
        batch.records(&mut |number, record| {
            numbers.push(number);
            records.push(record.unwrap());
        });
        true
    })
    .unwrap();
    assert_eq!(numbers, (1..=ROWS as u64).collect::<Vec<_>>());
    records
}

fn expect_rows(name: &str, bytes: &[u8]) {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), bytes).unwrap();
    let found: Vec<Value> = records(folder.path()).into_iter().map(Value::Object).collect();
    assert_eq!(found, rows(), "{name}");
}

fn lines() -> Vec<u8> {
    rows().iter().map(|row| format!("{row}\n")).collect::<String>().into()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    packed.write_all(bytes).unwrap();
    packed.finish().unwrap()
}

#[test]
fn text_formats_and_their_compressions() {
    let array = Value::from(rows()).to_string().into_bytes();
    for (name, bytes) in [("a.jsonl", lines()), ("a.json", lines()), ("a.json", array.clone()), ("a.jsonl", array)] {
        expect_rows(name, &bytes);
        expect_rows(&format!("{name}.gz"), &gzip(&bytes));
        expect_rows(&format!("{name}.zst"), &zstd::encode_all(bytes.as_slice(), 1).unwrap());
    }
    // Several members, as of files put one behind the other; a name that says nothing.
    let lines = lines();
    let middle = 1 + lines.iter().position(|byte| *byte == b'\n').unwrap();
    expect_rows("rows", &[gzip(&lines[..middle]), gzip(&lines[middle..])].concat());
}

#[test]
fn parquet_and_arrow() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let mut parquet = ArrowWriter::try_new(File::create(&path).unwrap(), table().schema(), None).unwrap();
    parquet.write(&table().slice(0, 30)).unwrap();
    parquet.flush().unwrap();
    parquet.write(&table().slice(30, ROWS - 30)).unwrap();
    parquet.close().unwrap();
    expect_rows("a.parquet", &fs::read(&path).unwrap());

    let mut file = FileWriter::try_new(File::create(&path).unwrap(), &table().schema()).unwrap();
    file.write(&table()).unwrap();
    file.finish().unwrap();
    expect_rows("a.feather", &fs::read(&path).unwrap());

    let mut stream = StreamWriter::try_new(File::create(&path).unwrap(), &table().schema()).unwrap();
    stream.write(&table().slice(0, 60)).unwrap();
    stream.write(&table().slice(60, ROWS - 60)).unwrap();
    stream.finish().unwrap();
    expect_rows("data-00000-of-00001.arrow", &fs::read(&path).unwrap());
}
