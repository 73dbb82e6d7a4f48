//! The file of one log, which cannot grow without end: of a long log the beginning and the end are kept, and between
//! them stands how much was left out.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::Path,
};

/// How much of a log's beginning is kept, in bytes.
const HEAD_BYTES: usize = 8 << 20;

/// How much of its end is kept at least, in bytes; at most twice as much.
const TAIL_BYTES: usize = 8 << 20;

/// A log that is written.
#[derive(Debug)]
pub(super) struct LogFile {
    file: File,
    /// In bytes.
    length: u64,
    /// The last byte that was written ends a line.
    line_is_complete: bool,
    /// Where the beginning that is kept ends, once something was left out.
    head: Option<u64>,
    /// How much of what was written is not there any more, in bytes.
    left_out: u64,
    head_bytes: usize,
    tail_bytes: usize,
}

impl LogFile {
    /// An empty log. Nobody else may write to it.
    pub(super) fn create(path: &Path) -> io::Result<Self> {
        let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
        let (head_bytes, tail_bytes) = (HEAD_BYTES, TAIL_BYTES);
        Ok(Self { file, length: 0, line_is_complete: true, head: None, left_out: 0, head_bytes, tail_bytes })
    }

    /// Writes bytes as they are: lines, or parts of them.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        for piece in bytes.chunks(self.tail_bytes) {
            self.file.write_all_at(piece, self.length)?;
            self.length += piece.len() as u64;
            self.line_is_complete = piece.ends_with(b"\n");
            if self.length > (self.head_bytes + 2 * self.tail_bytes) as u64 {
                self.shorten()?;
            }
        }
        Ok(())
    }

    /// Writes a line, with its line break. It does not go on where bytes were written that end no line.
    pub(super) fn line(&mut self, text: &str) -> io::Result<()> {
        if !self.line_is_complete {
            self.write(b"\n")?;
        }
        self.write(text.as_bytes())?;
        self.write(b"\n")
    }

    /// Takes the middle out. Whoever is killed here leaves a log that begins as it did, and says that it was shortened.
    fn shorten(&mut self) -> io::Result<()> {
        let from = self.length - self.tail_bytes as u64;
        let tail = whole_lines_at_end(self.read(from, self.tail_bytes)?);
        let (head, noted) = match self.head {
            Some(head) => (head, note(self.left_out).len() as u64),
            None => (self.end_of_head()?, 0),
        };
        self.left_out += self.length - head - noted - tail.len() as u64;
        let mut end = note(self.left_out).into_bytes();
        end.extend(tail);
        self.file.write_all_at(&end, head)?;
        self.length = head + end.len() as u64;
        self.head = Some(head);
        self.file.set_len(self.length)
    }

    /// Where the last whole line of the beginning ends; in the middle of a line only if that has no end.
    fn end_of_head(&self) -> io::Result<u64> {
        let head = self.read(0, self.head_bytes)?;
        Ok(head.iter().rposition(|byte| *byte == b'\n').map_or(head.len(), |end| end + 1) as u64)
    }

    fn read(&self, from: u64, bytes: usize) -> io::Result<Vec<u8>> {
        let mut read = vec![0; bytes];
        match self.file.read_exact_at(&mut read, from) {
            // Somebody has emptied it.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
            done => done?,
        }
        Ok(read)
    }
}

/// What stands between the beginning and the end.
fn note(left_out: u64) -> String {
    format!("\n[... {left_out} bytes are left out here: of a long log the beginning and the end are kept ...]\n")
}

fn whole_lines_at_end(mut bytes: Vec<u8>) -> Vec<u8> {
    let begin = bytes.iter().position(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    if begin < bytes.len() {
        bytes.drain(..begin);
    }
    bytes
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    fn log(folder: &tempfile::TempDir) -> LogFile {
        let log = LogFile::create(&folder.path().join("log")).unwrap();
        LogFile { head_bytes: 100, tail_bytes: 200, ..log }
    }

    fn text(folder: &tempfile::TempDir) -> String {
        std::fs::read_to_string(folder.path().join("log")).unwrap()
    }

    /// The number of bytes that the log says are left out.
    fn said(text: &str) -> usize {
        let (_, said) = text.split_once("\n[... ").unwrap();
        said.split_once(' ').unwrap().0.parse().unwrap()
    }

    #[test]
    fn a_log_that_is_not_long_is_kept_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(&folder);
        log.write(b"no line break").unwrap();
        log.line("a line").unwrap();
        log.write(&[b'x'; 400]).unwrap();
        assert_eq!(text(&folder), format!("no line break\na line\n{}", "x".repeat(400)));
    }

    #[test]
    fn of_a_long_log_whole_lines_of_both_ends_are_kept_and_every_byte_between_is_counted() {
        for size in [1, 7, 64, 1000] {
            let folder = tempfile::tempdir().unwrap();
            let mut log = log(&folder);
            let all: String = (0..1000).map(|number| format!("line {number}\n")).collect();
            for piece in all.as_bytes().chunks(size) {
                log.write(piece).unwrap();
            }
            let text = text(&folder);
            assert!(text.len() <= 700, "{} bytes", text.len());
            assert!(text.starts_with("line 0\nline 1\n") && text.ends_with("line 998\nline 999\n"), "{text}");
            let note = note(said(&text) as u64);
            let (head, tail) = text.split_once(&note).unwrap();
            assert!(head.ends_with('\n') && tail.starts_with("line ") && tail.len() >= 180, "{text}");
            assert_eq!(head.len() + said(&text) + tail.len(), all.len(), "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let folder = tempfile::tempdir().unwrap();
        let mut log = log(&folder);
        for _ in 0..100 {
            log.write(&[b'x'; 64]).unwrap();
        }
        log.line("the end").unwrap();
        let text = text(&folder);
        let kept = text.matches('x').count() - note(0).matches('x').count();
        assert!(text.ends_with("x\nthe end\n") && text.len() <= 700, "{text}");
        assert_eq!(kept + said(&text), 6400);
    }
}
