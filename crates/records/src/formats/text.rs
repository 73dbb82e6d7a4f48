//! Plain text: one document a file or a line, in the field `text`.

use crate::{
    Error, Fault, Limits, Options, ROW_LIMIT_BYTES, Reason, Record, TextDocument, Unit,
    batch::{Chunk, Chunks},
    lines::Lines,
    source::{Source, Text},
};

pub(crate) struct Reader;

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["txt", "md"]
    }

    fn claims(&self, extension: &str, _head: &[u8]) -> bool {
        self.extensions().contains(&extension)
    }

    fn unit(&self) -> Unit {
        Unit::Line
    }

    fn open(&self, source: Source, options: &Options) -> Result<Box<dyn Chunks>, Error> {
        let text = source.into_text()?;
        Ok(match options.text_document {
            TextDocument::File => Box::new(Whole(text, false)),
            TextDocument::Line => Box::new(ByLine(Lines::new(text))),
        })
    }
}

struct Whole(Text, bool);

struct ByLine(Lines);

/// Documents with the lines where they begin; one that was too long is missing.
struct Documents(Vec<(u64, Option<Vec<u8>>)>);

impl Chunks for Whole {
    fn next(&mut self, _limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        if std::mem::replace(&mut self.1, true) {
            return Ok(None);
        }
        let mut text = Vec::new();
        let mut read = std::io::Read::take(self.0.reader(), ROW_LIMIT_BYTES as u64 + 1);
        std::io::Read::read_to_end(&mut read, &mut text).map_err(|source| self.0.failed("line", 0, source))?;
        if text.is_empty() {
            return Ok(None);
        }
        Ok(Some(Box::new(Documents(vec![(1, (text.len() <= ROW_LIMIT_BYTES).then_some(text))]))))
    }

    fn position_bytes(&self) -> u64 {
        self.0.position_bytes()
    }
}

impl Chunks for ByLine {
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while lines.len() < limits.rows && bytes < limits.bytes {
            let Some((read, line)) = self.0.next()? else {
                return Ok(if bytes == 0 { None } else { Some(Box::new(Documents(lines))) });
            };
            bytes += read;
            if line.as_ref().is_none_or(|line| !line.trim_ascii().is_empty()) {
                lines.push((self.0.number, line));
            }
        }
        Ok(Some(Box::new(Documents(lines))))
    }

    fn position_bytes(&self) -> u64 {
        self.0.position_bytes()
    }
}

impl Chunk for Documents {
    fn records(self: Box<Self>, each: &mut dyn FnMut(u64, Result<Record, Fault>)) {
        for (number, text) in self.0 {
            let text = text.ok_or_else(Fault::too_long).and_then(|text| {
                String::from_utf8(text).map_err(|error| {
                    let at = error.utf8_error().valid_up_to() + 1;
                    Reason::NotUtf8.because(format!("the text is not UTF-8 from byte {at} on"))
                })
            });
            each(number, text.map(|text| Record::from_iter([("text".to_owned(), text.into())])));
        }
    }
}
