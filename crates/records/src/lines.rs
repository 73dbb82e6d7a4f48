//! The lines of a text.

use std::io::{self, BufRead, Read};

use crate::{ROW_LIMIT_BYTES, source::Text};

/// What is passed over of a line that is too long. Text that has no end is no text.
const LINE_LIMIT_BYTES: u64 = 4 << 30;

/// A piece of text, missing if it was too long, and how many bytes were read for it.
pub(crate) type Piece = (usize, Option<Vec<u8>>);

/// Reads a text line by line. A line ends with LF or CR LF, or with CR where the beginning of the text knows no LF.
pub(crate) struct Lines {
    text: Text,
    end: u8,
    /// Lines that were read.
    pub(crate) number: u64,
}

impl Lines {
    pub(crate) fn new(text: Text) -> Self {
        let end = if !text.head.contains(&b'\n') && text.head.contains(&b'\r') { b'\r' } else { b'\n' };
        Self { text, end, number: 0 }
    }

    /// The next line without its end, and how many bytes were read for it; none at the end. The line itself is missing
    /// if it is too long.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, crate::Error> {
        let line = read_line(self.text.reader(), self.end, ROW_LIMIT_BYTES)
            .map_err(|source| self.text.failed("line", self.number, source))?;
        self.number += u64::from(line.is_some());
        Ok(line)
    }

    pub(crate) fn position_bytes(&self) -> u64 {
        self.text.position_bytes()
    }
}

fn read_line(reader: &mut dyn BufRead, end: u8, limit_bytes: usize) -> io::Result<Option<Piece>> {
    let mut bytes = Vec::new();
    // One byte for the line end, one more to see that the line is too long.
    let mut read = (&mut *reader).take(limit_bytes as u64 + 2).read_until(end, &mut bytes)?;
    if read == 0 {
        return Ok(None);
    }
    let ended = bytes.last() == Some(&end);
    if ended {
        bytes.pop();
    }
    if bytes.len() > limit_bytes {
        if !ended {
            read += skip_line(reader, end)?;
        }
        return Ok(Some((read, None)));
    }
    if end == b'\n' && bytes.last() == Some(&b'\r') {
        bytes.pop();
    }
    Ok(Some((read, Some(bytes))))
}

fn skip_line(reader: &mut dyn BufRead, end: u8) -> io::Result<usize> {
    let mut skipped = 0;
    loop {
        let buffer = reader.fill_buf()?;
        let found = buffer.iter().position(|byte| *byte == end);
        let used = found.map_or(buffer.len(), |at| at + 1);
        let over = buffer.is_empty() || found.is_some();
        reader.consume(used);
        skipped += used;
        if over {
            return Ok(skipped);
        }
        if skipped as u64 > LINE_LIMIT_BYTES {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a line of more than 4 GiB"));
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a failed test may panic")]
mod tests {
    use std::io::BufReader;

    use super::*;

    fn lines(text: &[u8], end: u8, limit_bytes: usize) -> Vec<Piece> {
        let mut reader = BufReader::with_capacity(3, text);
        let mut lines = Vec::new();
        while let Some(line) = read_line(&mut reader, end, limit_bytes).unwrap() {
            lines.push(line);
        }
        lines
    }

    #[test]
    fn lines_end_where_they_should() {
        let line = |text: &str| Some(text.as_bytes().to_vec());
        assert_eq!(lines(b"", b'\n', 9), []);
        assert_eq!(lines(b"ab\r\n\ncd", b'\n', 9), [(4, line("ab")), (1, line("")), (2, line("cd"))]);
        assert_eq!(lines(b"ab\r\rcd", b'\r', 9), [(3, line("ab")), (1, line("")), (2, line("cd"))]);
    }

    #[test]
    fn long_lines_are_passed_over() {
        let expected = [(5, Some(b"1234".to_vec())), (6, None), (10, None), (2, Some(b"x".to_vec())), (7, None)];
        assert_eq!(lines(b"1234\n12345\n123456789\nx\n1234567", b'\n', 4), expected);
    }
}
