//! CSV with a header. A cell without text is a field that is not there; every other is text.
//!
//! # Source
//! RFC 4180; ends of lines of any kind.

use std::sync::Arc;

use csv_core::{ReadRecordResult, ReaderBuilder};

use crate::{
    Error, Fault, Limits, Options, ROW_LIMIT_BYTES, Reason, Record, Unit,
    batch::{Chunk, Chunks},
    source::{Source, Text},
};

pub(crate) struct Reader;

/// What is passed over of a row that is too long: a quote that nothing closes takes in all that follows.
const SKIP_LIMIT_BYTES: u64 = 4 << 30;

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["csv"]
    }

    fn claims(&self, extension: &str, _head: &[u8]) -> bool {
        extension == "csv"
    }

    fn unit(&self) -> Unit {
        Unit::Line
    }

    fn open(&self, source: Source, _options: &Options) -> Result<Box<dyn Chunks>, Error> {
        open(source, b',')
    }
}

pub(super) fn open(source: Source, delimiter: u8) -> Result<Box<dyn Chunks>, Error> {
    let csv = ReaderBuilder::new().delimiter(delimiter).build();
    let mut table = Table { text: source.into_text()?, csv, header: Arc::new(Vec::new()), over: false };
    if let Some((_, row)) = table.row()? {
        let row = row.ok_or(Fault::too_long());
        let header = row.and_then(|row| row.cells().map(|cell| cell.map(str::to_owned)).collect::<Result<Vec<_>, _>>());
        let header = header.map_err(|fault| table.broken(format!("the header: {}", fault.detail)))?;
        if let Some(twice) = header.iter().enumerate().find(|(at, name)| header[..*at].contains(name)) {
            return Err(table.broken(format!("the header has `{}` twice", twice.1)));
        }
        table.header = Arc::new(header);
    }
    Ok(Box::new(table))
}

struct Table {
    text: Text,
    csv: csv_core::Reader,
    header: Arc<Vec<String>>,
    over: bool,
}

/// The cells of a row one behind the other, and where each ends.
struct Row {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

struct RowChunk {
    header: Arc<Vec<String>>,
    /// Rows with the lines where they begin; one that was too long is missing.
    rows: Vec<(u64, Option<Row>)>,
}

impl Row {
    fn cells(&self) -> impl Iterator<Item = Result<&str, Fault>> {
        (0..self.ends.len()).map(|at| {
            let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
            std::str::from_utf8(&self.bytes[start..self.ends[at]])
                .map_err(|_| Reason::NotUtf8.because(format!("cell {} is not UTF-8", at + 1)))
        })
    }
}

impl Table {
    /// The next row with the line where it begins; none at the end.
    fn row(&mut self) -> Result<Option<(u64, Option<Row>)>, Error> {
        if self.over {
            return Ok(None);
        }
        let line = self.pass_line_ends()?;
        let (mut bytes, mut ends) = (vec![0; 1 << 10], vec![0; 16]);
        let (mut length, mut cells, mut passed, mut long) = (0, 0, 0_u64, false);
        loop {
            let input = match self.text.reader().fill_buf() {
                Ok(input) => input,
                Err(source) => return Err(self.text.failed("line", self.csv.line(), source)),
            };
            let (result, used, written, ended) = self.csv.read_record(input, &mut bytes[length..], &mut ends[cells..]);
            self.text.reader().consume(used);
            (length, cells, passed) = (length + written, cells + ended, passed + used as u64);
            if long || length > ROW_LIMIT_BYTES {
                (long, length, cells) = (true, 0, 0);
            }
            if passed > SKIP_LIMIT_BYTES {
                return Err(self.broken(format!("the row at line {line} has more than 4 GiB: is a quote not closed?")));
            }
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull => bytes.resize(bytes.len() * 2, 0),
                ReadRecordResult::OutputEndsFull => ends.resize(ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    bytes.truncate(length);
                    ends.truncate(cells);
                    return Ok(Some((line, (!long).then_some(Row { bytes, ends }))));
                }
                ReadRecordResult::End => {
                    self.over = true;
                    return Ok(None);
                }
            }
        }
    }

    /// Passes over the ends of lines before a row, and says at which line it begins.
    fn pass_line_ends(&mut self) -> Result<u64, Error> {
        loop {
            let input = match self.text.reader().fill_buf() {
                Ok(input) => input,
                Err(source) => return Err(self.text.failed("line", self.csv.line(), source)),
            };
            let Some(end) = input.first().copied().filter(|byte| matches!(byte, b'\r' | b'\n')) else {
                return Ok(self.csv.line());
            };
            self.text.reader().consume(1);
            self.csv.set_line(self.csv.line() + u64::from(end == b'\n'));
        }
    }

    fn broken(&self, detail: String) -> Error {
        Error::Broken { path: self.text.path.clone(), place: String::new(), detail }
    }
}

impl Chunks for Table {
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        let (mut rows, mut bytes) = (Vec::new(), 0);
        while rows.len() < limits.rows && bytes < limits.bytes {
            let Some((line, row)) = self.row()? else { break };
            bytes += row.as_ref().map_or(0, |row| row.bytes.len());
            rows.push((line, row));
        }
        if rows.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(RowChunk { header: Arc::clone(&self.header), rows })))
    }

    fn position_bytes(&self) -> u64 {
        self.text.position_bytes()
    }
}

impl Chunk for RowChunk {
    fn records(self: Box<Self>, each: &mut dyn FnMut(u64, Result<Record, Fault>)) {
        for (line, row) in self.rows {
            each(line, row.ok_or_else(Fault::too_long).and_then(|row| record(&self.header, &row)));
        }
    }
}

fn record(header: &[String], row: &Row) -> Result<Record, Fault> {
    if row.ends.len() != header.len() {
        let (cells, columns) = (row.ends.len(), header.len());
        return Err(Reason::WrongCells.because(format!("the row has {cells} cells, the header {columns}")));
    }
    let mut record = Record::new();
    for (name, cell) in header.iter().zip(row.cells()) {
        let cell = cell?;
        if !cell.is_empty() {
            record.insert(name.clone(), cell.into());
        }
    }
    Ok(record)
}
