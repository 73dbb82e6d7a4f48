//! Lines of a stream that comes in pieces and is not trusted to have line breaks.

/// The longest event line, in bytes. Events are short; a longer line is no event.
pub(super) const MAX_LINE_BYTES: usize = 1 << 20;

/// Puts the pieces of a stream together to lines.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
}

impl Lines {
    /// Takes the next piece, and gives each line that it completes to `heard`, without its line break, and never more
    /// than [`MAX_LINE_BYTES`] of it: the rest of a longer line is skipped.
    pub(super) fn take(&mut self, piece: &[u8], mut heard: impl FnMut(&[u8])) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, complete) = match part {
                [text @ .., b'\n'] => (text, true),
                text => (text, false),
            };
            if complete && self.held.is_empty() && text.len() <= MAX_LINE_BYTES {
                heard(text);
                continue;
            }
            let room = MAX_LINE_BYTES - self.held.len();
            self.held.extend_from_slice(&text[..text.len().min(room)]);
            if complete {
                heard(&self.held);
                self.held.clear();
            }
        }
    }

    /// The stream has ended: what is left is a line, too.
    pub(super) fn end(&mut self, mut heard: impl FnMut(&[u8])) {
        if !self.held.is_empty() {
            heard(&self.held);
            self.held.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines of a stream that comes in pieces of `size` bytes.
    fn lines(stream: &[u8], size: usize) -> Vec<Vec<u8>> {
        let (mut lines, mut heard) = (Lines::default(), Vec::new());
        for piece in stream.chunks(size) {
            lines.take(piece, |line| heard.push(line.to_vec()));
        }
        lines.end(|line| heard.push(line.to_vec()));
        heard
    }

    #[test]
    fn lines_end_at_breaks_and_at_the_end_however_they_come() {
        for size in 1..12 {
            assert_eq!(lines(b"one\n\nthree\nfour", size), [&b"one"[..], b"", b"three", b"four"], "pieces of {size}");
            assert_eq!(lines(b"one\n", size), [b"one"], "pieces of {size}");
        }
    }

    #[test]
    fn a_line_without_end_takes_bounded_memory_and_the_next_one_is_whole() {
        let mut stream = vec![b'x'; 3 * MAX_LINE_BYTES];
        stream.extend_from_slice(b"\nnext\n");
        for size in [4096, stream.len()] {
            let heard = lines(&stream, size);
            assert_eq!(heard.iter().map(Vec::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, 4]);
            assert_eq!(heard[1], b"next");
        }
        let mut lines = Lines::default();
        lines.take(&stream[..2 * MAX_LINE_BYTES], |_| {});
        assert_eq!(lines.held.len(), MAX_LINE_BYTES);
    }
}
