//! Two JSON documents, or two files of JSON lines, value by value.

use serde::Serialize;
use serde_json::Value;

/// More differences than this are only counted.
pub(super) const SHOWN: usize = 1000;

/// How two files of JSON differ.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ValueDiff {
    /// How many values there are in either file.
    pub values: u64,
    /// How many of them differ.
    pub differ: u64,
    /// The first of those that differ.
    pub shown: Vec<ValueChange>,
}

/// How a value differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ValueChange {
    /// Where it is: `history[3].loss`; with lines, `line 4: loss`.
    pub place: String,
    /// What it was; `None` if it is new.
    pub recorded: Option<Value>,
    /// What it is; `None` if it is gone.
    pub now: Option<Value>,
    /// The difference, if both are numbers.
    pub difference: Option<f64>,
}

impl ValueDiff {
    /// Compares two documents, or with `lines` two files of one document a line. `None` if one is not JSON.
    pub fn of(recorded: &[u8], now: &[u8], lines: bool) -> Option<Self> {
        let mut diff = Self::default();
        if lines {
            let parse = |bytes: &[u8]| -> Option<Vec<Value>> {
                let lines = std::str::from_utf8(bytes).ok()?.lines();
                lines.map(|line| serde_json::from_str(line).ok()).collect()
            };
            let (recorded, now) = (parse(recorded)?, parse(now)?);
            for index in 0..recorded.len().max(now.len()) {
                diff.compare(&format!("line {}:", index + 1), recorded.get(index), now.get(index));
            }
        } else {
            let parse = |bytes: &[u8]| serde_json::from_slice::<Value>(bytes).ok();
            diff.compare("", Some(&parse(recorded)?), Some(&parse(now)?));
        }
        Some(diff)
    }

    /// Compares the values at `place`, one of which is there.
    pub fn compare(&mut self, place: &str, recorded: Option<&Value>, now: Option<&Value>) {
        match (recorded, now) {
            (Some(Value::Object(one)), Some(Value::Object(other))) => {
                let added = other.keys().filter(|name| !one.contains_key(*name));
                for name in one.keys().chain(added) {
                    self.compare(&field(place, name), one.get(name), other.get(name));
                }
            }
            (Some(Value::Array(one)), Some(Value::Array(other))) => {
                for index in 0..one.len().max(other.len()) {
                    self.compare(&format!("{place}[{index}]"), one.get(index), other.get(index));
                }
            }
            _ => self.leaf(place, recorded, now),
        }
    }

    fn leaf(&mut self, place: &str, recorded: Option<&Value>, now: Option<&Value>) {
        self.values += 1;
        if recorded == now {
            return;
        }
        self.differ += 1;
        if self.shown.len() < SHOWN {
            let number = |value: Option<&Value>| value.and_then(Value::as_f64);
            let difference = number(now).zip(number(recorded)).map(|(now, recorded)| now - recorded);
            self.shown.push(ValueChange {
                place: place.to_owned(),
                recorded: recorded.cloned(),
                now: now.cloned(),
                difference,
            });
        }
    }
}

fn field(place: &str, name: &str) -> String {
    match place {
        "" => name.to_owned(),
        line if line.ends_with(':') => format!("{line} {name}"),
        place => format!("{place}.{name}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use serde_json::json;

    use super::*;

    fn places(diff: &ValueDiff) -> Vec<&str> {
        diff.shown.iter().map(|change| change.place.as_str()).collect()
    }

    #[test]
    fn documents_are_compared_by_their_values_and_not_by_their_text() {
        let one = json!({ "a": 1, "list": [1, { "loss": 2.5 }], "gone": null, "same": "x" });
        let other = json!({ "same": "x", "a": 1, "list": [1, { "loss": 2.0 }, 7], "new": true });
        let diff = ValueDiff::of(one.to_string().as_bytes(), other.to_string().as_bytes(), false).unwrap();
        assert_eq!(places(&diff), ["list[1].loss", "list[2]", "gone", "new"]);
        assert_eq!((diff.values, diff.differ), (7, 4));
        assert_eq!(diff.shown[0].difference, Some(-0.5));
        assert_eq!((&diff.shown[1].recorded, &diff.shown[1].now), (&None, &Some(json!(7))));
        let spaced = serde_json::to_vec_pretty(&one).unwrap();
        assert_eq!(ValueDiff::of(one.to_string().as_bytes(), &spaced, false).unwrap().differ, 0);
    }

    #[test]
    fn lines_are_compared_one_by_one() {
        let diff =
            ValueDiff::of(b"{\"step\":1,\"loss\":3}\n{\"step\":2}\n", b"{\"step\":1,\"loss\":2}\n", true).unwrap();
        assert_eq!(places(&diff), ["line 1: loss", "line 2:"]);
        assert_eq!(ValueDiff::of(b"{}", b"not json", true), None);
        assert_eq!(ValueDiff::of(b"{}", b"{} {}", false), None);
    }

    #[test]
    fn of_many_differences_all_are_counted_and_some_are_shown() {
        let numbers = |from: usize| serde_json::to_vec(&(from..from + 5000).collect::<Vec<_>>()).unwrap();
        let diff = ValueDiff::of(&numbers(0), &numbers(1), false).unwrap();
        assert_eq!((diff.differ, diff.shown.len()), (5000, SHOWN));
    }
}
