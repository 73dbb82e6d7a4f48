//! Reads samples one by one, with memory bounded by a batch.

use std::{
    fs::File,
    path::{Path, PathBuf},
};

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int32Type, UInt32Type},
};
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::{
    Error, FILE_NAME, Sample,
    schema::{describe, is_samples},
};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 256;

/// An iterator over the samples of a folder, in the file's order. It ends behind the first error.
pub struct Reader {
    path: PathBuf,
    rows: u64,
    batches: ParquetRecordBatchReader,
    batch: Option<RecordBatch>,
    next_in_batch: usize,
    next_row: u64,
    failed: bool,
}

impl Reader {
    /// Opens a samples folder.
    ///
    /// # Errors
    /// If the folder has no [`FILE_NAME`], or that file is no Parquet or has other columns.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (path, builder) = builder(folder)?;
        let rows = u64::try_from(builder.metadata().file_metadata().num_rows()).unwrap_or(0);
        match builder.with_batch_size(BATCH_ROWS).build() {
            Ok(batches) => Ok(Self { path, rows, batches, batch: None, next_in_batch: 0, next_row: 0, failed: false }),
            Err(source) => Err(Error::Parquet { action: "read", path, source }),
        }
    }

    /// Number of samples in the folder, those already read included.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The next batch with its columns checked for empty cells.
    fn advance(&mut self) -> Option<Result<RecordBatch, Error>> {
        let batch = match self.batches.next()? {
            Ok(batch) => batch,
            Err(source) => return Some(Err(Error::Arrow { action: "read", path: self.path.clone(), source })),
        };
        let empty_cells = batch.columns().iter().any(|column| {
            column.null_count() > 0 || column.as_list_opt::<i32>().is_some_and(|list| list.values().null_count() > 0)
        });
        if empty_cells {
            let last = self.next_row + batch.num_rows().saturating_sub(1) as u64;
            return Some(Err(Error::Null { path: self.path.clone(), first: self.next_row, last }));
        }
        Some(Ok(batch))
    }

    fn sample(&self, batch: &RecordBatch) -> Result<Sample, Error> {
        // `is_samples` has checked names and types; a file that changes them later has no such column.
        let column = |name| batch.column_by_name(name).ok_or_else(|| self.columns_error(batch));
        let list = |name| column(name)?.as_list_opt::<i32>().ok_or_else(|| self.columns_error(batch));
        let at = self.next_in_batch;
        let ids = list("input_ids")?.value(at);
        let labels = list("labels")?.value(at);
        let (Some(ids), Some(labels), Some(lengths)) = (
            ids.as_primitive_opt::<UInt32Type>(),
            labels.as_primitive_opt::<Int32Type>(),
            column("length")?.as_primitive_opt::<UInt32Type>(),
        ) else {
            return Err(self.columns_error(batch));
        };
        let length = lengths.value(at);
        if ids.len() != labels.len() || ids.len() != length as usize {
            let (ids, labels) = (ids.len(), labels.len());
            return Err(Error::Row { path: self.path.clone(), row: self.next_row, ids, labels, length });
        }
        Ok(Sample { input_ids: ids.values().to_vec(), labels: labels.values().to_vec() })
    }

    fn columns_error(&self, batch: &RecordBatch) -> Error {
        Error::Columns { path: self.path.clone(), found: describe(&batch.schema()) }
    }
}

/// The file of a samples folder, with its columns checked.
pub(crate) fn builder(folder: &Path) -> Result<(PathBuf, ParquetRecordBatchReaderBuilder<File>), Error> {
    let path = folder.join(FILE_NAME);
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => {
            return Err(Error::NotSamples { folder: folder.to_owned() });
        }
        Err(source) => return Err(Error::Io { action: "open", path, source }),
    };
    let builder = match ParquetRecordBatchReaderBuilder::try_new(file) {
        Ok(builder) => builder,
        Err(source) => return Err(Error::Parquet { action: "read", path, source }),
    };
    if !is_samples(builder.schema()) {
        let found = describe(builder.schema());
        return Err(Error::Columns { path, found });
    }
    Ok((path, builder))
}

impl Iterator for Reader {
    type Item = Result<Sample, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let batch = match self.batch.take() {
            Some(batch) if self.next_in_batch < batch.num_rows() => batch,
            _ => match self.advance()? {
                Ok(batch) => {
                    self.next_in_batch = 0;
                    batch
                }
                Err(error) => {
                    self.failed = true;
                    return Some(Err(error));
                }
            },
        };
        let sample = self.sample(&batch);
        self.failed = sample.is_err();
        self.next_in_batch += 1;
        self.next_row += 1;
        self.batch = Some(batch);
        Some(sample)
    }
}
