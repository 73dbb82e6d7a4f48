//! The lines of the data, in order, in batches of bounded size.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, Read},
    path::{Path, PathBuf},
};

use crate::Error;

/// A longer line is a bad row: it would take too much memory.
pub(crate) const LINE_LIMIT_BYTES: usize = 32 << 20;
/// A batch ends with the line that reaches this size, so that long lines do not add up.
const BATCH_BYTES: usize = 4 << 20;
const BUFFER_BYTES: usize = 1 << 20;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A file of the data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DataFile {
    /// Where it is.
    pub(crate) path: PathBuf,
    /// Its path in its input, for messages.
    pub(crate) name: String,
    /// Its size.
    pub(crate) bytes: u64,
}

/// A line that is not blank.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Line {
    /// The index of its file.
    pub(crate) file: usize,
    /// Its number in the file, from 1.
    pub(crate) number: u64,
    /// Its bytes without the line end; `None` if there are more than [`LINE_LIMIT_BYTES`].
    pub(crate) bytes: Option<Vec<u8>>,
}

/// Lines that one thread takes at once.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    /// The lines in order.
    pub(crate) lines: Vec<Line>,
    /// What was read for them, blank lines included.
    pub(crate) read_bytes: u64,
}

/// Every `.jsonl` file of the inputs: input by input, sorted by path in each.
pub(crate) fn find_files<'a>(inputs: impl Iterator<Item = &'a Path>) -> Result<Vec<DataFile>, Error> {
    let mut files = Vec::new();
    let mut others = Vec::new();
    for input in inputs {
        let mut found = Vec::new();
        walk(input, "", &mut found, &mut others)?;
        found.sort_by(|a, b| a.name.cmp(&b.name));
        files.extend(found);
    }
    if files.is_empty() {
        others.sort();
        others.truncate(5);
        let found = if others.is_empty() { "nothing".to_owned() } else { others.join(", ") };
        return Err(Error::NoFiles { found });
    }
    Ok(files)
}

fn walk(folder: &Path, prefix: &str, files: &mut Vec<DataFile>, others: &mut Vec<String>) -> Result<(), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::Io { path, source }
    };
    for entry in fs::read_dir(folder).map_err(failed(folder))? {
        let entry = entry.map_err(failed(folder))?;
        let path = entry.path();
        let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
        let metadata = fs::metadata(&path).map_err(failed(&path))?;
        if metadata.is_dir() {
            walk(&path, &format!("{name}/"), files, others)?;
        } else if path.extension().is_some_and(|extension| extension == "jsonl") {
            files.push(DataFile { path, name, bytes: metadata.len() });
        } else {
            others.push(name);
        }
    }
    Ok(())
}

/// Reads batches of at most `batch_rows` lines and hands each to `take`, until that returns false.
pub(crate) fn read_batches(
    files: &[DataFile],
    batch_rows: usize,
    mut take: impl FnMut(Batch) -> bool,
) -> Result<(), Error> {
    let mut batch = Batch::default();
    let mut batch_bytes = 0;
    for (index, file) in files.iter().enumerate() {
        let failed = |source| Error::Io { path: file.path.clone(), source };
        let mut reader = BufReader::with_capacity(BUFFER_BYTES, File::open(&file.path).map_err(failed)?);
        for number in 1.. {
            let Some((read, bytes)) = read_line(&mut reader, number == 1, LINE_LIMIT_BYTES).map_err(failed)? else {
                break;
            };
            batch.read_bytes += read;
            if bytes.as_ref().is_some_and(|bytes| bytes.iter().all(u8::is_ascii_whitespace)) {
                continue;
            }
            batch_bytes += bytes.as_ref().map_or(0, Vec::len);
            batch.lines.push(Line { file: index, number, bytes });
            if batch.lines.len() >= batch_rows || batch_bytes >= BATCH_BYTES {
                batch_bytes = 0;
                if !take(std::mem::take(&mut batch)) {
                    return Ok(());
                }
            }
        }
    }
    take(batch);
    Ok(())
}

/// The next line and the bytes read for it; `None` at the end. A byte order mark before the first line is no part of it.
fn read_line(reader: &mut impl BufRead, first: bool, limit_bytes: usize) -> io::Result<Option<(u64, Option<Vec<u8>>)>> {
    let mut bytes = Vec::new();
    // One byte for the line end, one more to see that the line is too long.
    let read = reader.by_ref().take(limit_bytes as u64 + 2).read_until(b'\n', &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') {
        bytes.pop();
    }
    if bytes.len() > limit_bytes {
        let skipped = if read > bytes.len() { 0 } else { reader.skip_until(b'\n')? };
        return Ok(Some(((read + skipped) as u64, None)));
    }
    if first && bytes.starts_with(BYTE_ORDER_MARK) {
        bytes.drain(..BYTE_ORDER_MARK.len());
    }
    Ok(Some((read as u64, Some(bytes))))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use super::*;

    fn lines(text: &[u8], limit_bytes: usize) -> Vec<(u64, Option<Vec<u8>>)> {
        let mut reader = BufReader::with_capacity(3, text);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader, lines.is_empty(), limit_bytes).unwrap() {
            lines.push(line);
        }
        lines
    }

    #[test]
    fn lines_end_where_they_should() {
        assert_eq!(lines(b"", 9), []);
        assert_eq!(lines(b"ab\n\ncd", 9), [(3, Some(b"ab".to_vec())), (1, Some(vec![])), (2, Some(b"cd".to_vec()))]);
        assert_eq!(
            lines(b"\xef\xbb\xbfab\n\xef\xbb\xbfc", 9),
            [(6, Some(b"ab".to_vec())), (4, Some(b"\xef\xbb\xbfc".to_vec()))]
        );
    }

    #[test]
    fn long_lines_are_passed_over() {
        let expected = [(5, Some(b"1234".to_vec())), (6, None), (10, None), (2, Some(b"x".to_vec())), (7, None)];
        assert_eq!(lines(b"1234\n12345\n123456789\nx\n1234567", 4), expected);
    }
}
