//! Lines of a stream that is not trusted to have line breaks.

use std::io::{self, BufRead, Read};

/// The longest event line, in bytes. Events are short; a longer line is no event.
pub(super) const MAX_LINE_BYTES: u64 = 1 << 20;

/// Reads the next line into `line`, without its line break, and never more than [`MAX_LINE_BYTES`] of it: the rest of
/// a longer line is skipped. `false` is the end of the stream.
pub(super) fn next_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let read = stream.by_ref().take(MAX_LINE_BYTES).read_until(b'\n', line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read as u64 == MAX_LINE_BYTES {
        stream.skip_until(b'\n')?;
    }
    Ok(read > 0)
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn lines_end_at_breaks_and_at_the_end() {
        let mut stream: &[u8] = b"one\n\ntwo";
        let mut line = Vec::new();
        for expected in [&b"one"[..], b"", b"two"] {
            assert!(next_line(&mut stream, &mut line).unwrap());
            assert_eq!(line, expected);
        }
        assert!(!next_line(&mut stream, &mut line).unwrap());
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory_and_the_next_one_is_whole() {
        let endless = io::repeat(b'x').take(3 * MAX_LINE_BYTES);
        let mut stream = io::BufReader::new(endless.chain(&b"\nnext\n"[..]));
        let mut line = Vec::new();
        assert!(next_line(&mut stream, &mut line).unwrap());
        assert_eq!(line.len() as u64, MAX_LINE_BYTES);
        assert!(next_line(&mut stream, &mut line).unwrap());
        assert_eq!(line, b"next");
        assert!(!next_line(&mut stream, &mut line).unwrap());
    }
}
