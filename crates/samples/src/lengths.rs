//! The lengths of all samples of a folder, without reading their tokens.

use std::path::{Path, PathBuf};

use arrow::{
    array::{Array, AsArray},
    datatypes::UInt32Type,
};
use parquet::arrow::{ProjectionMask, arrow_reader::ParquetRecordBatchReader};

use crate::{Error, reader::builder};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 8192;

/// An iterator over the numbers of tokens of the samples, in the file's order.
pub struct Lengths {
    path: PathBuf,
    batches: ParquetRecordBatchReader,
    batch: std::vec::IntoIter<u32>,
    rows: u64,
}

impl Lengths {
    /// Opens a samples folder.
    ///
    /// # Errors
    /// Those of [`Reader::open`](crate::Reader::open).
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let (path, builder) = builder(folder)?;
        let only = ProjectionMask::columns(builder.parquet_schema(), ["length"]);
        match builder.with_projection(only).with_batch_size(BATCH_ROWS).build() {
            Ok(batches) => Ok(Self { path, batches, batch: Vec::new().into_iter(), rows: 0 }),
            Err(source) => Err(Error::Parquet { action: "read", path, source }),
        }
    }

    fn advance(&mut self) -> Option<Result<Vec<u32>, Error>> {
        let batch = match self.batches.next()? {
            Ok(batch) => batch,
            Err(source) => return Some(Err(Error::Arrow { action: "read", path: self.path.clone(), source })),
        };
        let first = self.rows;
        self.rows += batch.num_rows() as u64;
        let column = batch.column_by_name("length").and_then(|column| column.as_primitive_opt::<UInt32Type>());
        match column {
            Some(lengths) if lengths.null_count() == 0 => Some(Ok(lengths.values().to_vec())),
            _ => Some(Err(Error::Null { path: self.path.clone(), first, last: self.rows.saturating_sub(1) })),
        }
    }
}

impl Iterator for Lengths {
    type Item = Result<u32, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(length) = self.batch.next() {
                return Some(Ok(length));
            }
            match self.advance()? {
                Ok(lengths) => self.batch = lengths.into_iter(),
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
