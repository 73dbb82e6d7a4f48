//! Writes samples one by one, with memory bounded by a row group.

use std::{
    fs::File,
    io::BufWriter,
    path::{Path, PathBuf},
    sync::Arc,
};

use arrow::{
    array::{ArrayRef, Int32Array, ListArray, RecordBatch, UInt32Array},
    buffer::{OffsetBuffer, ScalarBuffer},
    datatypes::DataType,
    error::ArrowError,
};
use parquet::{
    arrow::{ArrowWriter, arrow_writer::ArrowWriterOptions},
    basic::{Compression, ZstdLevel},
    file::properties::{EnabledStatistics, WriterProperties},
};

use crate::{
    Error, FILE_NAME, SampleRef,
    schema::{element, schema},
};

/// A batch goes to the Parquet writer when it holds this many samples or tokens, and a row group ends behind the batch
/// that fills it. Both are part of the file's bytes.
const BATCH_ROWS: usize = 1024;
const BATCH_TOKENS: usize = 1 << 18;
const ROW_GROUP_TOKENS: usize = 1 << 22;
/// Offsets in a batch are 32 bits wide.
const SAMPLE_TOKENS: usize = (i32::MAX as usize) - BATCH_TOKENS;

/// How much was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Totals {
    /// Samples.
    pub rows: u64,
    /// Tokens of all samples.
    pub tokens: u64,
    /// Tokens that the loss counts ([`SampleRef::trained`]).
    pub trained_tokens: u64,
}

/// Writes a samples folder. Only [`Writer::finish`] makes it readable.
pub struct Writer {
    path: PathBuf,
    parquet: ArrowWriter<BufWriter<File>>,
    input_ids: Vec<u32>,
    labels: Vec<i32>,
    offsets: Vec<i32>,
    lengths: Vec<u32>,
    row_group_tokens: usize,
    totals: Totals,
}

impl Writer {
    /// Starts [`FILE_NAME`] in an existing folder.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(folder: &Path) -> Result<Self, Error> {
        let path = folder.join(FILE_NAME);
        let file = match File::create(&path) {
            Ok(file) => BufWriter::new(file),
            Err(source) => return Err(Error::Io { action: "create", path, source }),
        };
        let parquet = match ArrowWriter::try_new_with_options(file, schema(), options()) {
            Ok(parquet) => parquet,
            Err(source) => return Err(Error::Parquet { action: "write", path, source }),
        };
        Ok(Self {
            path,
            parquet,
            input_ids: Vec::new(),
            labels: Vec::new(),
            offsets: vec![0],
            lengths: Vec::new(),
            row_group_tokens: 0,
            totals: Totals::default(),
        })
    }

    /// Adds a sample.
    ///
    /// # Errors
    /// If ids and labels differ in number, or the file cannot be written.
    pub fn write(&mut self, sample: SampleRef<'_>) -> Result<(), Error> {
        let (ids, labels) = (sample.input_ids.len(), sample.labels.len());
        let (true, true, Ok(length)) = (ids == labels, ids <= SAMPLE_TOKENS, u32::try_from(ids)) else {
            return Err(Error::Sample { ids, labels, limit: SAMPLE_TOKENS });
        };
        self.input_ids.extend_from_slice(sample.input_ids);
        self.labels.extend_from_slice(sample.labels);
        self.lengths.push(length);
        // Fits: at most BATCH_TOKENS were there, and SAMPLE_TOKENS leaves room for them.
        self.offsets.push(self.input_ids.len() as i32);
        self.totals.rows += 1;
        self.totals.tokens += u64::from(length);
        self.totals.trained_tokens += sample.trained() as u64;
        if self.lengths.len() >= BATCH_ROWS || self.input_ids.len() >= BATCH_TOKENS {
            self.flush()?;
        }
        Ok(())
    }

    /// How much was written so far.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Writes what is pending and the footer.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn finish(mut self) -> Result<Totals, Error> {
        self.flush()?;
        match self.parquet.close() {
            Ok(_) => Ok(self.totals),
            Err(source) => Err(Error::Parquet { action: "write", path: self.path, source }),
        }
    }

    fn flush(&mut self) -> Result<(), Error> {
        if self.lengths.is_empty() {
            return Ok(());
        }
        self.row_group_tokens += self.input_ids.len();
        let batch =
            self.take_batch().map_err(|source| Error::Arrow { action: "write", path: self.path.clone(), source })?;
        let mut written = self.parquet.write(&batch);
        if self.row_group_tokens >= ROW_GROUP_TOKENS {
            self.row_group_tokens = 0;
            written = written.and_then(|()| self.parquet.flush());
        }
        written.map_err(|source| Error::Parquet { action: "write", path: self.path.clone(), source })
    }

    fn take_batch(&mut self) -> Result<RecordBatch, ArrowError> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.offsets, vec![0])));
        let ids = Arc::new(UInt32Array::from(std::mem::take(&mut self.input_ids)));
        let labels = Arc::new(Int32Array::from(std::mem::take(&mut self.labels)));
        let columns: Vec<ArrayRef> = vec![
            Arc::new(ListArray::try_new(element(DataType::UInt32), offsets.clone(), ids, None)?),
            Arc::new(ListArray::try_new(element(DataType::Int32), offsets, labels, None)?),
            Arc::new(UInt32Array::from(std::mem::take(&mut self.lengths))),
        ];
        RecordBatch::try_new(schema(), columns)
    }
}

/// Nothing in here may depend on the machine. Statistics of token ids help nobody.
fn options() -> ArrowWriterOptions {
    let properties = WriterProperties::builder()
        .set_created_by("pipe".to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::default()))
        .set_statistics_enabled(EnabledStatistics::None)
        .set_offset_index_disabled(true)
        .set_max_row_group_row_count(None)
        .build();
    ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true)
}
