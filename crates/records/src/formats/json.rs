//! JSON: an array of objects, never in memory as a whole; also an object whose first field is such an array, as
//! `{"data": [...]}`, and objects one after the other.
//!
//! # Source
//! RFC 8259

use crate::{
    Error, Fault, Limits, Options, Record, Unit,
    batch::{Chunk, Chunks},
    elements::{Elements, Layout},
    formats::{first_mark, jsonl::starts_array},
    source::Source,
    value,
};

pub(crate) struct Reader;

/// Names under which an array of rows stands in an object. Any other may be a field of a row.
const FIELDS: [&str; 7] = ["data", "rows", "records", "examples", "instances", "train", "items"];

impl super::Reader for Reader {
    fn extensions(&self) -> &'static [&'static str] {
        &["json"]
    }

    fn claims(&self, extension: &str, head: &[u8]) -> bool {
        match extension {
            "json" => true,
            "jsonl" | "ndjson" | "" => starts_array(head),
            _ => false,
        }
    }

    fn unit(&self) -> Unit {
        Unit::Row
    }

    fn open(&self, source: Source, _options: &Options) -> Result<Box<dyn Chunks>, Error> {
        let text = source.into_text()?;
        let blank = text.head.len() - text.head.trim_ascii_start().len();
        let (layout, skip_bytes) = match (first_mark(&text.head), field_bytes(&text.head)) {
            (Some(b'['), _) => (Layout::Array, blank + 1),
            (_, Some(field_bytes)) => (Layout::FirstField, field_bytes),
            _ => (Layout::Sequence, 0),
        };
        Ok(Box::new(Array(Elements::new(text, layout, skip_bytes)?)))
    }
}

/// The length of `{ "data": [`, if the text begins so.
fn field_bytes(head: &[u8]) -> Option<usize> {
    let rest = head.trim_ascii_start().strip_prefix(b"{")?.trim_ascii_start().strip_prefix(b"\"")?;
    let name = FIELDS.iter().find(|name| rest.starts_with(name.as_bytes()))?;
    let rest = rest[name.len()..].strip_prefix(b"\"")?.trim_ascii_start().strip_prefix(b":")?;
    let rest = rest.trim_ascii_start().strip_prefix(b"[")?;
    Some(head.len() - rest.len())
}

struct Array(Elements);

/// The texts of elements with their numbers; one that was too long is missing.
struct ElementChunk(Vec<(u64, Option<Vec<u8>>)>);

impl Chunks for Array {
    fn next(&mut self, limits: Limits) -> Result<Option<Box<dyn Chunk>>, Error> {
        let mut elements = Vec::new();
        let mut bytes = 0;
        while elements.len() < limits.rows && bytes < limits.bytes {
            let Some((read, element)) = self.0.next()? else { break };
            bytes += read;
            elements.push((self.0.number, element));
        }
        Ok(if elements.is_empty() { None } else { Some(Box::new(ElementChunk(elements))) })
    }

    fn position_bytes(&self) -> u64 {
        self.0.position_bytes()
    }
}

impl Chunk for ElementChunk {
    fn records(self: Box<Self>, each: &mut dyn FnMut(u64, Result<Record, Fault>)) {
        for (number, element) in self.0 {
            each(number, element.map_or_else(|| Err(Fault::too_long()), |element| value::parse(&element)));
        }
    }
}
