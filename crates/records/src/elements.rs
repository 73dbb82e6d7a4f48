//! Cuts a JSON text into the texts of its elements, without looking into them.

use std::io;

use crate::{Error, ROW_LIMIT_BYTES, lines::Piece, source::Text};

/// What is passed over of an element that is too long.
const ELEMENT_LIMIT_BYTES: u64 = 4 << 30;

/// The elements of an array, or values one after the other.
pub(crate) struct Elements {
    text: Text,
    layout: Layout,
    over: bool,
    /// Elements that were cut.
    pub(crate) number: u64,
}

/// What surrounds the elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// A JSON array, and nothing behind it.
    Array,
    /// An array that is the first field of an object; what follows it is left alone.
    FirstField,
    /// Nothing: objects one after the other.
    Sequence,
}

/// Where in an element a byte stands.
#[derive(Debug, Default)]
struct State {
    depth: usize,
    /// Whether anything but blanks was seen.
    begun: bool,
    in_string: bool,
    escaped: bool,
}

/// What a byte means for the cut.
enum Cut {
    /// It belongs to the element.
    Keep,
    /// It belongs to the element and ends it.
    Last,
    /// It stands behind the element: a comma.
    Behind,
    /// It closes the array.
    Close,
}

impl Elements {
    /// `skip_bytes` is what stands before the array's elements or the first value, with the `[`.
    pub(crate) fn new(mut text: Text, layout: Layout, skip_bytes: usize) -> Result<Self, Error> {
        let skipped = io::copy(&mut io::Read::take(text.reader(), skip_bytes as u64), &mut io::sink());
        skipped.map_err(|source| text.failed("row", 0, source))?;
        Ok(Self { text, layout, over: false, number: 0 })
    }

    /// The text of the next element, and how many bytes were read for it; none at the end. The text is missing if it is
    /// too long.
    pub(crate) fn next(&mut self) -> Result<Option<Piece>, Error> {
        if self.over {
            return Ok(None);
        }
        let mut element = Vec::new();
        let (mut read, mut long) = (0, false);
        let mut state = State::default();
        loop {
            let buffer = match self.text.reader().fill_buf() {
                Ok(buffer) => buffer,
                Err(source) => return Err(self.text.failed("row", self.number, source)),
            };
            if buffer.is_empty() {
                return self.end(element, read, long);
            }
            let mut end = None;
            for (at, byte) in buffer.iter().enumerate() {
                match state.step(*byte, self.layout != Layout::Sequence) {
                    Cut::Keep => {}
                    cut => {
                        end = Some((at, cut));
                        break;
                    }
                }
            }
            let (kept, used) = match end {
                None => (buffer.len(), buffer.len()),
                Some((at, Cut::Last)) => (at + 1, at + 1),
                Some((at, _)) => (at, at + 1),
            };
            long |= element.len() + kept > ROW_LIMIT_BYTES;
            if long {
                element = Vec::new();
            } else if element.is_empty() {
                element.extend_from_slice(buffer[..kept].trim_ascii_start());
            } else {
                element.extend_from_slice(&buffer[..kept]);
            }
            self.text.reader().consume(used);
            read += used;
            if read as u64 > ELEMENT_LIMIT_BYTES {
                let detail = "a row of more than 4 GiB; is this a JSON array of objects?".to_owned();
                return Err(self.broken(detail));
            }
            match end {
                None => {}
                Some((_, Cut::Close)) => return self.close(element, read, long),
                Some(_) => {
                    self.number += 1;
                    return Ok(Some((read, (!long).then_some(element))));
                }
            }
        }
    }

    pub(crate) fn position_bytes(&self) -> u64 {
        self.text.position_bytes()
    }

    /// The array's `]`: behind the last element, or in an empty array.
    fn close(&mut self, element: Vec<u8>, read: usize, long: bool) -> Result<Option<Piece>, Error> {
        self.over = true;
        if self.layout == Layout::Array {
            self.nothing_follows()?;
        }
        if element.trim_ascii().is_empty() && !long && self.number == 0 {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some((read, (!long).then_some(element))))
    }

    fn end(&mut self, element: Vec<u8>, read: usize, long: bool) -> Result<Option<Piece>, Error> {
        self.over = true;
        if self.layout != Layout::Sequence {
            return Err(self.broken("the file ends before its array does; get it again".to_owned()));
        }
        if element.is_empty() && !long {
            return Ok(None);
        }
        self.number += 1;
        Ok(Some((read, (!long).then_some(element))))
    }

    fn nothing_follows(&mut self) -> Result<(), Error> {
        loop {
            let buffer = match self.text.reader().fill_buf() {
                Ok(buffer) => buffer,
                Err(source) => return Err(self.text.failed("row", self.number, source)),
            };
            let (length, blank) = (buffer.len(), buffer.trim_ascii().is_empty());
            if !blank {
                return Err(self.broken("text follows the end of the array".to_owned()));
            }
            if length == 0 {
                return Ok(());
            }
            self.text.reader().consume(length);
        }
    }

    fn broken(&self, detail: String) -> Error {
        Error::Broken { path: self.text.path.clone(), place: format!("behind row {}: ", self.number), detail }
    }
}

impl State {
    fn step(&mut self, byte: u8, array: bool) -> Cut {
        if self.in_string {
            match byte {
                _ if self.escaped => self.escaped = false,
                b'\\' => self.escaped = true,
                b'"' => self.in_string = false,
                _ => {}
            }
            return Cut::Keep;
        }
        match byte {
            b'"' => self.in_string = true,
            b'{' | b'[' => self.depth += 1,
            b'}' | b']' if self.depth > 1 => self.depth -= 1,
            b'}' | b']' if self.depth == 1 => {
                self.depth = 0;
                return if array { Cut::Keep } else { Cut::Last };
            }
            b']' if array => return Cut::Close,
            b',' if array && self.depth == 0 => return Cut::Behind,
            // Values one after the other that are no objects end with their line.
            b'\n' if !array && self.depth == 0 && self.begun => return Cut::Last,
            _ => {}
        }
        self.begun |= !byte.is_ascii_whitespace();
        Cut::Keep
    }
}
