//! Values of a template as Python writes them: `str()`, `repr()` and `json.dumps()`.
//!
//! # Source
//! The Python reference (object.__repr__ of the built-in types) and the module `json` of its standard library.

use std::fmt::Write;

use minijinja::{
    Error, ErrorKind,
    value::{Kwargs, Value, ValueKind},
};

/// `str(value)`: what `{{ value }}` prints.
pub(crate) fn str(value: &Value) -> String {
    let mut out = String::new();
    match value.as_str() {
        Some(text) => out.push_str(text),
        None => repr(&mut out, value),
    }
    out
}

/// The whitespace that `str.strip()` removes.
pub(crate) fn is_whitespace(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

/// The filter `tojson` of Transformers: `json.dumps` with `ensure_ascii=False` and without HTML escapes.
pub(crate) fn to_json(value: &Value, kwargs: &Kwargs) -> Result<String, Error> {
    let separators: Option<Vec<String>> = kwargs.get("separators")?;
    let indent: Option<usize> = kwargs.get("indent")?;
    let (item, key) = match separators.as_deref() {
        Some([item, key]) => (item.clone(), key.clone()),
        Some(_) => return Err(Error::new(ErrorKind::InvalidOperation, "tojson: separators must be two strings")),
        None => (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned()),
    };
    let style = Json {
        ensure_ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sort_keys: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
        indent,
        item,
        key,
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    style.value(&mut out, value, 0)?;
    Ok(out)
}

fn repr(out: &mut String, value: &Value) {
    match value.kind() {
        ValueKind::Undefined => {}
        ValueKind::None => out.push_str("None"),
        ValueKind::Bool => out.push_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(out, value),
        ValueKind::String => quote(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq => {
            let tuple = value.is_tuple();
            out.push(if tuple { '(' } else { '[' });
            let mut count = 0;
            for item in items(value) {
                separate(out, &mut count);
                repr(out, &item);
            }
            out.push_str(match (tuple, count) {
                (true, 1) => ",)",
                (true, _) => ")",
                (false, _) => "]",
            });
        }
        ValueKind::Map => {
            out.push('{');
            let mut count = 0;
            for key in items(value) {
                separate(out, &mut count);
                repr(out, &key);
                out.push_str(": ");
                repr(out, &value.get_item(&key).unwrap_or_default());
            }
            out.push('}');
        }
        // Objects of the template engine itself, which no data contains.
        _ => out.push_str(&value.to_string()),
    }
}

fn separate(out: &mut String, count: &mut usize) {
    if *count > 0 {
        out.push_str(", ");
    }
    *count += 1;
}

/// The items of a list or the keys of a map. Data is at hand, so iterating over it cannot fail.
fn items(value: &Value) -> impl Iterator<Item = Value> {
    value.try_iter().into_iter().flat_map(|iterator| iterator.checked().filter_map(Result::ok))
}

fn number(out: &mut String, value: &Value) {
    if value.is_integer() {
        let _ = write!(out, "{value}");
    } else {
        float(out, f64::try_from(value.clone()).unwrap_or(f64::NAN));
    }
}

/// `repr(float)`: the shortest digits that read back the same, with an exponent below 1e-4 and from 1e16 on.
fn float(out: &mut String, value: f64) {
    if value.is_nan() {
        return out.push_str("nan");
    }
    if value.is_infinite() {
        return out.push_str(if value > 0.0 { "inf" } else { "-inf" });
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let _ = if !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        write!(out, "{digits}e{sign}{:02}", exponent.unsigned_abs())
    } else if value.fract() == 0.0 {
        write!(out, "{value:.1}")
    } else {
        write!(out, "{value}")
    };
}

/// `repr(str)`: single quotes unless only double ones avoid an escape; what is not printable is escaped.
fn quote(out: &mut String, text: &str) {
    let mark = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    out.push(mark);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            _ if c == mark => out.extend(['\\', c]),
            '\'' | '"' => out.push(c),
            _ if is_printable(c) => out.push(c),
            _ => {
                let _ = match u32::from(c) {
                    code @ ..0x100 => write!(out, "\\x{code:02x}"),
                    code @ ..0x10000 => write!(out, "\\u{code:04x}"),
                    code => write!(out, "\\U{code:08x}"),
                };
            }
        }
    }
    out.push(mark);
}

/// Whether `str.isprintable()` holds. Behind another character, Rust's own debug output escapes just the others.
fn is_printable(c: char) -> bool {
    let mut buffer = [b'a'; 5];
    let length = 1 + c.encode_utf8(&mut buffer[1..]).len();
    std::str::from_utf8(&buffer[..length]).is_ok_and(|text| text.escape_debug().nth(1) == Some(c))
}

struct Json {
    ensure_ascii: bool,
    sort_keys: bool,
    indent: Option<usize>,
    item: String,
    key: String,
}

impl Json {
    fn value(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => number(out, value),
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                out.push('[');
                let mut count = 0;
                for item in items(value) {
                    self.separate(out, &mut count, depth);
                    self.value(out, &item, depth + 1)?;
                }
                self.close(out, ']', count, depth);
            }
            ValueKind::Map => {
                out.push('{');
                let mut keys: Vec<Value> = items(value).collect();
                if self.sort_keys {
                    keys.sort();
                }
                let mut count = 0;
                for key in keys {
                    self.separate(out, &mut count, depth);
                    self.string(out, &str(&key));
                    out.push_str(&self.key);
                    self.value(out, &value.get_item(&key)?, depth + 1)?;
                }
                self.close(out, '}', count, depth);
            }
            kind => return Err(Error::new(ErrorKind::InvalidOperation, format!("tojson: {kind} is no JSON"))),
        }
        Ok(())
    }

    fn separate(&self, out: &mut String, count: &mut usize, depth: usize) {
        if *count > 0 {
            out.push_str(&self.item);
        }
        *count += 1;
        self.new_line(out, depth + 1);
    }

    fn close(&self, out: &mut String, mark: char, count: usize, depth: usize) {
        if count > 0 {
            self.new_line(out, depth);
        }
        out.push(mark);
    }

    fn new_line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = self.indent {
            out.push('\n');
            out.extend(std::iter::repeat_n(' ', indent.saturating_mul(depth)));
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\x08' => out.push_str("\\b"),
                '\x0c' => out.push_str("\\f"),
                _ if c < ' ' || (self.ensure_ascii && c > '~') => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                _ => out.push(c),
            }
        }
        out.push('"');
    }
}
