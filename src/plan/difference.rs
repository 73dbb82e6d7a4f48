//! Where two values of a configuration differ, in a few words: of a script of many lines, the line is what one wants to
//! know.

use serde_json::Value;

use super::{Brief, reason::LONGEST_VALUE};

/// Of a long line, so much is shown before the first character that differs.
const BEFORE: usize = 20;

/// "changed in line 3 from `"a"` to `"b"`", for values of which both are there.
pub(super) fn words(from: &Value, to: &Value) -> String {
    match (from, to) {
        (Value::String(from), Value::String(to)) => texts(from, to),
        (from, to) => {
            let (one, other) = (Brief(from).to_string(), Brief(to).to_string());
            if one != other {
                return format!("changed from {one} to {other}");
            }
            // Both were cut before they differ.
            let [one, other] = around(&from.to_string(), &to.to_string());
            format!("changed from {one} to {other}")
        }
    }
}

fn texts(from: &str, to: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (from.lines().collect(), to.lines().collect());
    let Differing { before, gone, added } = differing(&old, &new);
    let line = before + 1;
    let quoted = |text: &str| Brief(&text.into()).to_string();
    let place = if old.len().max(new.len()) > 1 { format!(" in line {line}") } else { String::new() };
    let lines = |count: usize| if count == 1 { "a line".to_owned() } else { format!("{count} lines") };
    match (gone, added) {
        ([], []) => "changed in how its lines end".to_owned(),
        ([], [first, ..]) if !old.is_empty() => {
            format!("has {} more from line {line} on: {}", lines(added.len()), quoted(first))
        }
        ([first, ..], []) if !new.is_empty() => {
            format!("has {} less from line {line} on: {}", lines(gone.len()), quoted(first))
        }
        (gone, added) => {
            let first = |lines: &[&str]| lines.first().copied().unwrap_or_default().to_owned();
            let [one, other] = around(&first(gone), &first(added));
            let more = match gone.len().max(added.len()) {
                0 | 1 => String::new(),
                count => format!(", and in {} more", lines(count - 1)),
            };
            format!("changed{place} from {} to {}{more}", quoted(&one), quoted(&other))
        }
    }
}

/// Where two texts differ, line by line.
pub(crate) struct Differing<'text> {
    /// How many lines are the same before.
    pub(crate) before: usize,
    /// The lines that only the first has.
    pub(crate) gone: &'text [&'text str],
    /// Those that only the second has.
    pub(crate) added: &'text [&'text str],
}

/// What is left without the lines that both begin and end with.
pub(crate) fn differing<'text>(old: &'text [&'text str], new: &'text [&'text str]) -> Differing<'text> {
    let before = old.iter().zip(new).take_while(|(one, other)| one == other).count();
    let (old, new) = (&old[before..], &new[before..]);
    let behind = old.iter().rev().zip(new.iter().rev()).take_while(|(one, other)| one == other).count();
    Differing { before, gone: &old[..old.len() - behind], added: &new[..new.len() - behind] }
}

/// The parts of two lines around the first character that differs, so that it is seen where they are cut.
fn around(one: &str, other: &str) -> [String; 2] {
    let same = one.chars().zip(other.chars()).take_while(|(one, other)| one == other).count();
    let is_long = |text: &str| text.chars().count() > LONGEST_VALUE;
    let skipped = if is_long(one) || is_long(other) { same.saturating_sub(BEFORE) } else { 0 };
    [one, other].map(|text| {
        let lead = if skipped > 0 { "..." } else { "" };
        let mut rest = text.chars().skip(skipped);
        let shown: String = rest.by_ref().take(LONGEST_VALUE - 2 * "...".len()).collect();
        let trail = if rest.next().is_some() { "..." } else { "" };
        format!("{lead}{shown}{trail}")
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn told(from: &str, to: &str) -> String {
        words(&from.into(), &to.into())
    }

    #[test]
    fn short_values_are_shown_whole() {
        assert_eq!(words(&json!(2e-3), &json!(1e-3)), "changed from 2e-3 to 1e-3");
        assert_eq!(told("a", "b"), r#"changed from "a" to "b""#);
        assert_eq!(words(&json!("8"), &json!(8)), r#"changed from "8" to 8"#);
    }

    #[test]
    fn of_a_script_the_line_is_named() {
        assert_eq!(told("a\nb\nc\n", "a\nB\nc\n"), r#"changed in line 2 from "b" to "B""#);
        assert_eq!(told("a\nb\nc\n", "x\ny\nc\n"), r#"changed in line 1 from "a" to "x", and in a line more"#);
        assert_eq!(told("a\nb\nc\n", "a\nc\n"), r#"has a line less from line 2 on: "b""#);
        assert_eq!(told("a\nc\n", "a\nb\nb\nc\n"), r#"has 2 lines more from line 2 on: "b""#);
        assert_eq!(told("a\nb", "a\nb\n"), "changed in how its lines end");
        assert_eq!(told("", "a"), r#"changed from "" to "a""#);
    }

    #[test]
    fn of_a_long_line_the_part_that_differs_is_shown() {
        let line = |value: &str| format!("python3 train.py --data {} --rate {value} --out model", "数据".repeat(40));
        let said = told(&line("1e-3"), &line("1e-4"));
        assert!(said.contains("--rate 1e-3 --out model\" to \"..."), "{said}");
        assert!(said.ends_with("--rate 1e-4 --out model\""), "{said}");
        let list = |value: u32| json!((0..40).chain([value]).collect::<Vec<_>>());
        let said = words(&list(7), &list(8));
        assert!(said.contains(",7] to ...") && said.ends_with(",8]"), "{said}");
    }

    #[test]
    fn two_long_values_that_begin_alike_never_look_the_same() {
        for length in [0, 30, 58, 59, 60, 61, 62, 100, 1000] {
            let text = |end: &str| format!("{}{end}{}", "a".repeat(length), "z".repeat(200));
            for (from, to) in [(text("x"), text("y")), (text("\"x"), text("\"y")), (text(""), text("x"))] {
                let said = told(&from, &to);
                let (one, other) = said.trim_start_matches("changed from ").split_once(" to ").unwrap_or_default();
                assert!(one != other && said.chars().count() < 200, "{length}: {said}");
            }
        }
    }
}
