//! JSON Lines: an object a line.
//!
//! # Source
//! <https://jsonlines.org>

use crate::{
    Error, Fault, Limits, Options, Record, Unit,
    batch::{Chunk, Chunks},
    formats::first_mark,
    lines::Lines,
    source::Source,
    value,
};

pub(crate) struct Reader;

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["jsonl", "ndjson"]
    }

    fn claims(&self, extension: &str, head: &[u8]) -> bool {
        match extension {
            "jsonl" | "ndjson" => !starts_array(head),
            "json" | "" => {
                let first = head.split(|byte| *byte == b'\n').find(|line| !line.trim_ascii().is_empty());
                first.is_some_and(|line| value::parse(line).is_ok())
            }
            _ => false,
        }
    }

    fn unit(&self) -> Unit {
        Unit::Line
    }

    fn open(&self, source: Source, _options: &Options) -> Result<Box<dyn Chunks>, Error> {
        Ok(Box::new(JsonLines(Lines::new(source.into_text()?))))
    }
}

/// Whether an array of objects begins, and not a line that happens to be an array.
pub(super) fn starts_array(head: &[u8]) -> bool {
    let Some(rest) = head.trim_ascii_start().strip_prefix(b"[") else { return false };
    matches!(first_mark(rest), None | Some(b'{' | b']'))
}

struct JsonLines(Lines);

/// Lines with their numbers; a line that was too long is missing.
struct LineChunk(Vec<(u64, Option<Vec<u8>>)>);

impl Chunks for JsonLines {
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        let mut lines = Vec::new();
        let mut bytes = 0;
        while lines.len() < limits.rows && bytes < limits.bytes {
            let Some((read, line)) = self.0.next()? else {
                return Ok(if bytes == 0 { None } else { Some(Box::new(LineChunk(lines))) });
            };
            bytes += read;
            if line.as_ref().is_none_or(|line| !line.trim_ascii().is_empty()) {
                lines.push((self.0.number, line));
            }
        }
        Ok(Some(Box::new(LineChunk(lines))))
    }

    fn position_bytes(&self) -> u64 {
        self.0.position_bytes()
    }
}

impl Chunk for LineChunk {
    fn records(self: Box<Self>, each: &mut dyn FnMut(u64, Result<Record, Fault>)) {
        for (number, line) in self.0 {
            each(number, line.map_or_else(|| Err(Fault::too_long()), |line| value::parse(&line)));
        }
    }
}
