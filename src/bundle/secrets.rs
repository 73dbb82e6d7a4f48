//! The values of environment variables, which stay where they are.
//!
//! A stage that is given a variable may print it, report it, or write it to a file. What it printed and reported is
//! taken out where the value is known; a bundle with a file that holds it is not written at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io::{self, Read},
};

use pipe_stage::Digest;
use serde_json::Value;

/// Shorter values are not looked for: they stand everywhere, and a guess finds them anyway.
const SHORTEST_BYTES: usize = 4;

/// The values of the variables that the stages of a run were given.
#[derive(Debug, Default)]
pub(super) struct Secrets {
    /// Longest first, so that of two values that begin alike the longer one is found.
    known: Vec<(String, Vec<u8>)>,
    /// Stage and variable, where the value is not set any more, or is another one now.
    unknown: BTreeSet<(String, String)>,
}

impl Secrets {
    /// Looks the values up by their digests. `given` holds stage, variable and the digest of its value, if that is known.
    pub(super) fn look_up<'run>(
        given: impl Iterator<Item = (&'run str, &'run str, Option<Digest>)>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Self {
        let mut secrets = Self::default();
        let mut known: BTreeMap<Vec<u8>, String> = BTreeMap::new();
        for (stage, name, digest) in given {
            let value = variable(name).map(OsString::into_encoded_bytes);
            if digest.is_none() || value.as_ref().map(|value| Digest::of(value)) != digest {
                secrets.unknown.insert((stage.to_owned(), name.to_owned()));
            }
            // Also one that is another now: it does not belong into a bundle either.
            if let Some(value) = value.filter(|value| value.len() >= SHORTEST_BYTES) {
                known.insert(value, name.to_owned());
            }
        }
        secrets.known = known.into_iter().map(|(value, name)| (name, value)).collect();
        secrets.known.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
        secrets
    }

    /// A variable of this stage whose value cannot be looked for.
    pub(super) fn unknown_of(&self, stage: &str) -> Option<&str> {
        self.unknown.iter().find(|(of, _)| of == stage).map(|(_, name)| name.as_str())
    }

    /// The length of the longest value, in bytes.
    pub(super) fn longest(&self) -> usize {
        self.known.first().map_or(0, |(_, value)| value.len())
    }

    /// The first value in `bytes`: its variable, and where it stands.
    fn find(&self, bytes: &[u8]) -> Option<(&str, std::ops::Range<usize>)> {
        let places = self.known.iter().filter_map(|(name, value)| {
            let start = position(bytes, value)?;
            Some((name.as_str(), start..start + value.len()))
        });
        places.min_by_key(|(_, place)| (place.start, std::cmp::Reverse(place.end)))
    }

    /// The bytes from `from` to `to`, with `[NAME]` for every value that begins or ends there.
    pub(super) fn without(&self, bytes: &[u8], from: usize, to: usize) -> Vec<u8> {
        let mut kept = Vec::with_capacity(to.saturating_sub(from));
        let mut done = 0;
        while let Some((name, place)) = self.find(&bytes[done..]) {
            let (start, end) = (done + place.start, done + place.end);
            if start >= to {
                break;
            }
            kept.extend_from_slice(bytes.get(done.max(from)..start).unwrap_or_default());
            if end > from {
                kept.extend_from_slice(format!("[{name}]").as_bytes());
            }
            done = end;
        }
        kept.extend_from_slice(bytes.get(done.max(from)..to).unwrap_or_default());
        kept
    }

    /// The same text without values.
    pub(super) fn without_text(&self, text: &str) -> String {
        String::from_utf8_lossy(&self.without(text.as_bytes(), 0, text.len())).into_owned()
    }

    /// The same JSON without values in its texts.
    pub(super) fn without_json(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.without_text(text).into(),
            Value::Array(items) => items.iter().map(|item| self.without_json(item)).collect(),
            Value::Object(fields) => {
                fields.iter().map(|(name, value)| (self.without_text(name), self.without_json(value))).collect()
            }
            value => value.clone(),
        }
    }

    /// The variable whose value stands in a text of the JSON.
    pub(super) fn in_json(&self, value: &Value) -> Option<&str> {
        match value {
            Value::String(text) => self.find(text.as_bytes()).map(|(name, _)| name),
            Value::Array(items) => items.iter().find_map(|item| self.in_json(item)),
            Value::Object(fields) => fields.iter().find_map(|(name, value)| {
                self.find(name.as_bytes()).map(|(name, _)| name).or_else(|| self.in_json(value))
            }),
            _ => None,
        }
    }
}

/// Where `wanted` stands in `bytes`.
fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    let (&first, rest) = wanted.split_first()?;
    let mut from = 0;
    loop {
        let start = from + bytes.get(from..)?.iter().position(|&byte| byte == first)?;
        if bytes[start + 1..].starts_with(rest) {
            return Some(start);
        }
        from = start + 1;
    }
}

/// Passes bytes on, and remembers the variable whose value went by.
pub(super) struct Watch<'secrets, R> {
    input: R,
    secrets: &'secrets Secrets,
    /// The end of what went by: a value may begin there and end in what comes.
    tail: Vec<u8>,
    /// The variable, once its value was seen.
    pub(super) seen: Option<&'secrets str>,
}

impl<'secrets, R: Read> Watch<'secrets, R> {
    /// Watches what is read from `input`.
    pub(super) fn new(input: R, secrets: &'secrets Secrets) -> Self {
        Self { input, secrets, tail: Vec::new(), seen: None }
    }
}

impl<R: Read> Read for Watch<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        let overlap = self.secrets.longest().saturating_sub(1);
        if self.secrets.longest() > 0 && self.seen.is_none() {
            let fresh = &buffer[..read];
            // Over the seam first, then in what is new.
            self.tail.extend_from_slice(&fresh[..fresh.len().min(overlap)]);
            let seen = self.secrets.find(&self.tail).or_else(|| self.secrets.find(fresh));
            self.seen = seen.map(|(name, _)| name);
            if fresh.len() >= overlap {
                self.tail.clear();
                self.tail.extend_from_slice(&fresh[fresh.len() - overlap..]);
            } else {
                self.tail.drain(..self.tail.len().saturating_sub(overlap));
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn secrets(values: &[(&str, &str)]) -> Secrets {
        let given = values.iter().map(|(name, value)| ("a", *name, Some(Digest::of(value.as_bytes()))));
        let values: BTreeMap<_, _> = values.iter().copied().collect();
        Secrets::look_up(given, |name| values.get(name).map(OsString::from))
    }

    #[test]
    fn values_are_replaced_by_their_names() {
        let secrets = secrets(&[("TOKEN", "hf_abcdef"), ("LONGER", "hf_abcdef-and-more"), ("PIN", "123")]);
        assert_eq!(
            secrets.without_text("hf_abcdef! 123 hf_abcdef-and-more hf_abcde"),
            "[TOKEN]! 123 [LONGER] hf_abcde"
        );
        let value = json!({ "n": 1, "hf_abcdef": ["x hf_abcdef"] });
        assert_eq!(secrets.without_json(&value), json!({ "n": 1, "[TOKEN]": ["x [TOKEN]"] }));
        assert_eq!(secrets.in_json(&value), Some("TOKEN"));
        assert_eq!(secrets.in_json(&json!(["123", 5, null])), None);
    }

    #[test]
    fn a_value_that_is_another_now_is_unknown() {
        let given = |digest| [("a", "TOKEN", digest)].into_iter();
        let then = Some(Digest::of(b"then"));
        for (digest, now) in [(then, None), (then, Some("later")), (None, None), (None, Some("then"))] {
            let secrets = Secrets::look_up(given(digest), |_| now.map(OsString::from));
            assert_eq!((secrets.unknown_of("a"), secrets.unknown_of("b")), (Some("TOKEN"), None));
            assert_eq!(secrets.in_json(&json!(now)), now.map(|_| "TOKEN"));
        }
        assert_eq!(Secrets::look_up(given(then), |_| Some("then".into())).unknown_of("a"), None);
    }

    #[test]
    fn a_value_that_reaches_into_the_part_that_is_kept_is_no_part_of_it() {
        let secrets = secrets(&[("TOKEN", "secret")]);
        let bytes = b"abc secret def";
        for (from, to, kept) in
            [(0, 14, "abc [TOKEN] def"), (6, 14, "[TOKEN] def"), (0, 6, "abc [TOKEN]"), (10, 14, " def")]
        {
            assert_eq!(String::from_utf8(secrets.without(bytes, from, to)).unwrap(), kept, "{from}..{to}");
        }
        assert_eq!(secrets.without(bytes, 0, 4), b"abc ");
    }

    /// Gives at most so many bytes at a time.
    struct Slow<'a>(&'a [u8], usize);

    impl Read for Slow<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let most = self.1.min(buffer.len());
            self.0.read(&mut buffer[..most])
        }
    }

    proptest! {
        #[test]
        fn a_value_is_seen_however_the_bytes_come(before in "[a-z]{0,40}", after in "[a-z]{0,40}", step in 1usize..20) {
            let secrets = secrets(&[("TOKEN", "SECRET!"), ("OTHER", "S-E-C-R-E-T-2")]);
            for (middle, seen) in [("SECRET!", Some("TOKEN")), ("S-E-C-R-E-T-2", Some("OTHER")), ("SECRET", None)] {
                let text = format!("{before}{middle}{after}");
                let mut watch = Watch::new(Slow(text.as_bytes(), step), &secrets);
                let mut passed = String::new();
                watch.read_to_string(&mut passed).unwrap();
                prop_assert_eq!(&passed, &text);
                prop_assert_eq!(watch.seen, seen);
            }
        }
    }
}
