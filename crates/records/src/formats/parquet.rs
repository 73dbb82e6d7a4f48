//! Parquet, read page by page.
//!
//! # Source
//! <https://parquet.apache.org/docs/file-format>

use ::parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};

use crate::{
    Error, Limits, Options, Unit,
    batch::{Chunk, Chunks},
    columns::TableChunk,
    source::Source,
};

pub(crate) struct Reader;

const MAGIC: &[u8] = b"PAR1";

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["parquet", "pq"]
    }

    fn claims(&self, extension: &str, head: &[u8]) -> bool {
        head.starts_with(MAGIC) || matches!(extension, "parquet" | "pq")
    }

    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn open(&self, source: Source, _options: &Options) -> Result<Box<dyn Chunks>, Error> {
        let (path, bytes) = (source.path.clone(), source.bytes);
        let file = source.into_file("Parquet")?;
        let builder = match ParquetRecordBatchReaderBuilder::try_new(file) {
            Ok(builder) => builder,
            Err(source) => return Err(Error::Parquet { path, source }),
        };
        let metadata = builder.metadata();
        let rows = u64::try_from(metadata.file_metadata().num_rows()).unwrap_or(0);
        // Of the row group with the largest rows: what they take unpacked.
        let row_bytes = metadata.row_groups().iter().map(|group| {
            let (bytes, rows) = (group.total_byte_size().max(0), group.num_rows().max(1));
            usize::try_from(bytes / rows).unwrap_or(usize::MAX)
        });
        let row_bytes = row_bytes.max().unwrap_or(1).max(1);
        Ok(Box::new(Shard { path, bytes, rows, row_bytes, start: State::Closed(Some(builder)), next_row: 0 }))
    }
}

struct Shard {
    path: std::path::PathBuf,
    bytes: u64,
    rows: u64,
    row_bytes: usize,
    start: State,
    next_row: u64,
}

/// The batch size is known with the first batch only.
enum State {
    Closed(Option<ParquetRecordBatchReaderBuilder<std::fs::File>>),
    Open(ParquetRecordBatchReader),
}

impl Chunks for Shard {
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        if let State::Closed(builder) = &mut self.start {
            let Some(builder) = builder.take() else { return Ok(None) };
            let rows = (limits.bytes / self.row_bytes).clamp(1, limits.rows.max(1));
            match builder.with_batch_size(rows).build() {
                Ok(reader) => self.start = State::Open(reader),
                Err(source) => return Err(Error::Parquet { path: self.path.clone(), source }),
            }
        }
        let State::Open(reader) = &mut self.start else { return Ok(None) };
        match reader.next() {
            None => Ok(None),
            Some(Ok(batch)) => {
                let first_row = self.next_row + 1;
                self.next_row += batch.num_rows() as u64;
                Ok(Some(Box::new(TableChunk { batch, first_row })))
            }
            Some(Err(source)) => Err(Error::Arrow { path: self.path.clone(), source }),
        }
    }

    fn position_bytes(&self) -> u64 {
        let part = self.next_row as f64 / self.rows.max(1) as f64;
        (part * self.bytes as f64) as u64
    }
}
