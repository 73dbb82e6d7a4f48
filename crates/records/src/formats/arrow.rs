//! Arrow IPC, as files (Feather 2) and as streams (`datasets.save_to_disk`). Read batch by batch, as they were written.
//!
//! # Source
//! <https://arrow.apache.org/docs/format/Columnar.html>, "Serialization and Interprocess Communication"

use std::{fs::File, io::BufReader, path::PathBuf};

use ::arrow::{
    array::RecordBatch,
    error::ArrowError,
    ipc::reader::{FileReader, StreamReader},
};

use crate::{
    Error, Limits, Options, Unit,
    batch::{Chunk, Chunks},
    columns::TableChunk,
    source::Source,
};

pub(crate) struct Reader;

const MAGIC: &[u8] = b"ARROW1";

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["arrow", "feather", "ipc"]
    }

    fn claims(&self, extension: &str, head: &[u8]) -> bool {
        head.starts_with(MAGIC) || self.extensions().contains(&extension)
    }

    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn open(&self, source: Source, _options: &Options) -> Result<Box<dyn Chunks>, Error> {
        let path = source.path.clone();
        let is_file = Source::head(&path)?.starts_with(MAGIC);
        let file = BufReader::new(source.into_file("Arrow")?);
        let batches = match is_file {
            true => FileReader::try_new(file, None).map(Batches::File),
            false => StreamReader::try_new(file, None).map(Batches::Stream),
        };
        match batches {
            Ok(batches) => Ok(Box::new(Table { path, batches, batch: None, row_bytes: 1, position_bytes: 0, next_row: 0 })),
            Err(source) => Err(Error::Arrow { path, source }),
        }
    }
}

enum Batches {
    File(FileReader<BufReader<File>>),
    Stream(StreamReader<BufReader<File>>),
}

impl Batches {
    fn next(&mut self) -> Option<Result<RecordBatch, ArrowError>> {
        match self {
            Self::File(reader) => reader.next(),
            Self::Stream(reader) => reader.next(),
        }
    }

    fn position_bytes(&mut self) -> u64 {
        let file = match self {
            Self::File(reader) => reader.get_mut(),
            Self::Stream(reader) => reader.get_mut(),
        };
        std::io::Seek::stream_position(file).unwrap_or(0)
    }
}

struct Table {
    path: PathBuf,
    batches: Batches,
    /// What is left of a batch.
    batch: Option<RecordBatch>,
    /// What a row of it takes in memory.
    row_bytes: usize,
    position_bytes: u64,
    next_row: u64,
}

impl Chunks for Table {
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        let batch = match self.batch.take().filter(|batch| batch.num_rows() > 0) {
            Some(batch) => batch,
            None => match self.batches.next() {
                None => return Ok(None),
                Some(Ok(batch)) => {
                    self.row_bytes = (batch.get_array_memory_size() / batch.num_rows().max(1)).max(1);
                    self.position_bytes = self.batches.position_bytes();
                    batch
                }
                Some(Err(source)) => return Err(Error::Arrow { path: self.path.clone(), source }),
            },
        };
        let rows = (limits.bytes / self.row_bytes).clamp(1, limits.rows.max(1)).min(batch.num_rows());
        self.batch = Some(batch.slice(rows, batch.num_rows() - rows));
        let first_row = self.next_row + 1;
        self.next_row += rows as u64;
        Ok(Some(Box::new(TableChunk { batch: batch.slice(0, rows), first_row })))
    }

    fn position_bytes(&self) -> u64 {
        self.position_bytes
    }
}
