//! Round trips, determinism and damaged files.
#![expect(clippy::unwrap_used, reason = "a failed test may panic")]

use std::{fs, path::Path, sync::Arc};

use arrow::{
    array::{ArrayRef, Int32Array, ListArray, RecordBatch, StringArray, UInt32Array},
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Int32Type, UInt32Type},
};
use parquet::arrow::ArrowWriter;
use pipe_samples::{Error, FILE_NAME, IGNORED, Reader, Sample, Samples, Totals, Writer};

/// Samples of many lengths, an empty one among them, with masked labels: more than one batch and row group.
fn many(count: usize) -> Vec<Sample> {
    (0..count)
        .map(|row| {
            let length = (row * 37) % 4096;
            let input_ids: Vec<u32> = (0..length).map(|at| ((row * 31 + at * 7) % 151_936) as u32).collect();
            let labels = input_ids.iter().enumerate().map(|(at, id)| if at % 3 == 0 { IGNORED } else { *id as i32 });
            Sample { labels: labels.collect(), input_ids }
        })
        .collect()
}

fn write(folder: &Path, samples: &[Sample]) -> Totals {
    let mut writer = Writer::create(folder).unwrap();
    for sample in samples {
        writer.write(sample.view()).unwrap();
    }
    writer.finish().unwrap()
}

#[test]
fn samples_come_back_in_order() {
    let folder = tempfile::tempdir().unwrap();
    let samples = many(5000);
    let totals = write(folder.path(), &samples);
    assert_eq!(totals.rows, 5000);
    assert_eq!(totals.tokens, samples.iter().map(|sample| sample.input_ids.len() as u64).sum::<u64>());

    let reader = Reader::open(folder.path()).unwrap();
    assert_eq!(reader.rows(), 5000);
    let read: Vec<Sample> = reader.map(Result::unwrap).collect();
    assert_eq!(read, samples);

    let loaded = Samples::load(folder.path()).unwrap();
    assert_eq!(loaded.len(), 5000);
    assert_eq!(loaded.tokens() as u64, totals.tokens);
    assert_eq!(loaded.get(1234), Some(samples[1234].view()));
    assert_eq!(loaded.get(5000), None);
    assert!(loaded.iter().eq(samples.iter().map(Sample::view)));
    assert_eq!(totals.trained_tokens, loaded.iter().map(|sample| sample.trained() as u64).sum::<u64>());
}

#[test]
fn bytes_follow_from_the_samples() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let samples = many(600);
    write(one.path(), &samples);
    write(two.path(), &samples);
    let bytes = |folder: &Path| fs::read(folder.join(FILE_NAME)).unwrap();
    assert_eq!(bytes(one.path()), bytes(two.path()));
    write(two.path(), &samples[1..]);
    assert_ne!(bytes(one.path()), bytes(two.path()));
}

#[test]
fn an_empty_folder_of_samples_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    assert_eq!(write(folder.path(), &[]), Totals::default());
    assert_eq!(Reader::open(folder.path()).unwrap().rows(), 0);
    assert!(Samples::load(folder.path()).unwrap().is_empty());
}

#[test]
fn the_first_label_is_never_trained() {
    let sample = Sample { input_ids: vec![5, 6, 7], labels: vec![5, IGNORED, 7] };
    assert_eq!(sample.view().trained(), 1);
    assert_eq!(Sample::default().view().trained(), 0);
}

#[test]
fn ids_without_labels_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    let sample = Sample { input_ids: vec![1, 2], labels: vec![1] };
    assert!(matches!(writer.write(sample.view()), Err(Error::Sample { ids: 2, labels: 1, .. })));
}

#[test]
fn other_files_are_named_for_what_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let message = |folder: &Path| Reader::open(folder).map(|_| ()).unwrap_err().to_string();
    assert!(message(folder.path()).contains("has no samples.parquet"), "{}", message(folder.path()));

    fs::write(folder.path().join(FILE_NAME), b"not parquet at all").unwrap();
    assert!(message(folder.path()).starts_with("cannot read"), "{}", message(folder.path()));

    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    write_columns(folder.path(), vec![("text", text)]);
    assert!(message(folder.path()).ends_with("and has text (Utf8)"), "{}", message(folder.path()));

    let ids: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    write_columns(folder.path(), vec![("input_ids", ids.clone()), ("labels", ids.clone()), ("length", ids)]);
    assert!(message(folder.path()).contains("input_ids (Int32)"), "{}", message(folder.path()));
}

#[test]
fn an_unfinished_file_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let mut writer = Writer::create(folder.path()).unwrap();
    writer.write(many(10)[9].view()).unwrap();
    drop(writer);
    assert!(Reader::open(folder.path()).is_err());
}

#[test]
fn rows_that_contradict_themselves_are_found() {
    let folder = tempfile::tempdir().unwrap();
    let ids: ArrayRef = Arc::new(ListArray::from_iter_primitive::<UInt32Type, _, _>([
        Some([Some(1), Some(2)]),
        Some([Some(3), Some(4)]),
    ]));
    let offsets = OffsetBuffer::new(vec![0, 2, 3].into());
    let field = Arc::new(Field::new("element", DataType::Int32, false));
    let labels: ArrayRef = Arc::new(ListArray::new(field, offsets, Arc::new(Int32Array::from(vec![1, 2, 3])), None));
    let length: ArrayRef = Arc::new(UInt32Array::from(vec![2, 2]));
    write_columns(folder.path(), vec![("input_ids", ids.clone()), ("labels", labels), ("length", length.clone())]);
    let mut reader = Reader::open(folder.path()).unwrap();
    assert!(reader.next().unwrap().is_ok());
    assert!(matches!(reader.next(), Some(Err(Error::Row { row: 1, ids: 2, labels: 1, length: 2, .. }))));
    assert!(reader.next().is_none(), "an error ends the iteration");

    let holes: ArrayRef =
        Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1), None]), Some([Some(3), Some(4)])]));
    write_columns(folder.path(), vec![("input_ids", ids), ("labels", holes), ("length", length)]);
    assert!(matches!(Reader::open(folder.path()).unwrap().next(), Some(Err(Error::Null { first: 0, last: 1, .. }))));
}

fn write_columns(folder: &Path, columns: Vec<(&str, ArrayRef)>) {
    let batch = RecordBatch::try_from_iter(columns).unwrap();
    let file = fs::File::create(folder.join(FILE_NAME)).unwrap();
    let mut writer = ArrowWriter::try_new(file, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}
