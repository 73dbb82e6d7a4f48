//! Files to batches, in order; batches to records, in any thread.

use crate::{DataFile, Error, Fault, Options, Record, source::Source};

/// A row of more bytes is a fault: it would take too much memory. What counts is the row's text, or the text in its
/// cells.
pub const ROW_LIMIT_BYTES: usize = 32 << 20;

/// When a batch is full. None of it changes a record.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Rows that a batch has at most.
    pub rows: usize,
    /// A batch ends with the row that reaches this size, so that long rows do not add up.
    pub bytes: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { rows: 256, bytes: 4 << 20 }
    }
}

/// Rows of one file, as they stand there.
pub struct Batch {
    /// The index of the file.
    pub file: usize,
    /// What was read of the file for it.
    pub read_bytes: u64,
    chunk: Box<dyn Chunk>,
}

impl Batch {
    /// The records in order, each with its number in the file, from 1 (a line or a row: [`Format::unit`]).
    ///
    /// [`Format::unit`]: crate::Format::unit
    pub fn records(self, each: &mut dyn FnMut(u64, Result<Record, Fault>)) {
        self.chunk.records(each);
    }
}

/// Some rows of a file, not looked into yet.
pub(crate) trait Chunk: Send {
    fn records(self: Box<Self>, each: &mut dyn FnMut(u64, Result<Record, Fault>));
}

/// The rows of a file, chunk by chunk.
pub(crate) trait Chunks {
    /// The next rows; none at the end. May be a chunk without rows, where much was read for none.
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error>;

    /// How many bytes of the file were read so far.
    fn position_bytes(&self) -> u64;
}

/// Reads the files in order and hands each batch to `take`, until that returns false.
///
/// # Errors
/// If a file cannot be read, or is damaged.
pub fn read(
    files: &[DataFile],
    options: &Options,
    limits: Limits,
    mut take: impl FnMut(Batch) -> bool,
) -> Result<(), Error> {
    for (index, file) in files.iter().enumerate() {
        let mut chunks = file.format.reader().open(Source::open(&file.path)?, options)?;
        let mut position_bytes = 0;
        while let Some(chunk) = chunks.next(limits)? {
            let read_bytes = chunks.position_bytes().saturating_sub(position_bytes);
            position_bytes += read_bytes;
            if !take(Batch { file: index, read_bytes, chunk }) {
                return Ok(());
            }
        }
    }
    Ok(())
}
