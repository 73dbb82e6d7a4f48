//! A value in one run and in the other, as it fits on a screen: short ones side by side, long ones and those of several
//! lines below each other, and of those only what differs.

use serde_json::Value;

use crate::{
    plan::{Brief, Differing, differing},
    report,
};

/// Digests are cut to so many digits, as everywhere.
const SHORT: usize = 12;

/// Two values of so many columns together stand side by side.
const SIDE_BY_SIDE: usize = 48;

/// Of a longer value that stands alone on its line, this much is shown, in columns.
const LINE: usize = 72;

/// Of what both values begin with, so much is shown before the first difference, in characters.
const LEAD: usize = 16;

/// As many lines of each value are shown.
const LINES: usize = 8;

/// How two values are shown.
#[derive(Debug, PartialEq)]
pub(super) enum Shown {
    /// Side by side.
    Pair(String, String),
    /// Line below line: what is gone, what is new, how much is left out.
    Lines(Vec<(Mark, String)>),
}

/// What a line says.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Mark {
    /// Only in the first run.
    Gone,
    /// Only in the second.
    New,
    /// How many lines are left out.
    More,
}

/// Two values that differ.
pub(super) fn shown(from: &Option<Value>, to: &Option<Value>) -> Shown {
    let (from, to) = (text(from), text(to));
    if !from.contains('\n') && !to.contains('\n') {
        let [one, two] = [&from, &to].map(|text| report::printable(text));
        if report::width(&one) + report::width(&two) <= SIDE_BY_SIDE {
            return Shown::Pair(one, two);
        }
    }
    let (old, new): (Vec<&str>, Vec<&str>) = (from.lines().collect(), to.lines().collect());
    let Differing { gone, added, .. } = differing(&old, &new);
    let lead = match (gone, added) {
        ([old, ..], [new, ..]) => old.chars().zip(new.chars()).take_while(|(one, other)| one == other).count(),
        _ => 0,
    };
    let mut lines = Vec::new();
    for (mark, side) in [(Mark::Gone, gone), (Mark::New, added)] {
        for (index, line) in side.iter().take(LINES).enumerate() {
            // Only the first lines stand for each other.
            lines.push((mark, cut(line, if index == 0 { lead } else { 0 })));
        }
        if side.len() > LINES {
            lines.push((Mark::More, format!("and {}", report::plural(side.len() - LINES, "more line"))));
        }
    }
    Shown::Lines(lines)
}

/// A line as far as it fits, from a little before its character `at`, where it begins to differ.
fn cut(line: &str, at: usize) -> String {
    let line = report::printable(line);
    if report::width(&line) <= LINE {
        return line;
    }
    let skipped = if at > 2 * LEAD { at - LEAD } else { 0 };
    let mut text = if skipped > 0 { "…".to_owned() } else { String::new() };
    for c in line.chars().skip(skipped) {
        text.push(c);
        if report::width(&text) >= LINE {
            text.push('…');
            break;
        }
    }
    text
}

/// A value in words. Digests, which are recognised by their form, are cut.
fn text(value: &Option<Value>) -> String {
    match value {
        None => "-".to_owned(),
        Some(Value::String(text)) => shortened(text),
        Some(value @ (Value::Array(_) | Value::Object(_))) => shortened(&value.to_string()),
        Some(value) => Brief(value).to_string(),
    }
}

fn shortened(text: &str) -> String {
    let is_digest = |word: &str| word.len() == 64 && word.bytes().all(|byte| byte.is_ascii_hexdigit());
    let words = text.split_inclusive(|c: char| !c.is_ascii_alphanumeric()).map(|word| {
        let bare = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric());
        if is_digest(bare) { format!("{}{}", &bare[..SHORT], &word[bare.len()..]) } else { word.to_owned() }
    });
    words.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(from: &str, to: &str) -> Shown {
        shown(&Some(from.into()), &Some(to.into()))
    }

    fn lines(from: &str, to: &str) -> Vec<(Mark, String)> {
        match of(from, to) {
            Shown::Lines(lines) => lines,
            Shown::Pair(from, to) => panic!("{from} {to}"),
        }
    }

    #[test]
    fn short_values_stand_side_by_side() {
        assert_eq!(of("a", "b"), Shown::Pair("a".to_owned(), "b".to_owned()));
        assert_eq!(shown(&None, &Some(1e-4.into())), Shown::Pair("-".to_owned(), "1e-4".to_owned()));
        let digest = "0".repeat(64);
        assert_eq!(of(&digest, "b"), Shown::Pair("0".repeat(SHORT), "b".to_owned()));
        assert!(matches!(of(&"数".repeat(24), "b"), Shown::Lines(_)), "a Chinese character takes two columns");
    }

    #[test]
    fn of_several_lines_those_are_shown_that_differ() {
        let gone = |text: &str| (Mark::Gone, text.to_owned());
        let new = |text: &str| (Mark::New, text.to_owned());
        assert_eq!(lines("a\nb\nc\n", "a\nB\nc\n"), [gone("b"), new("B")]);
        assert_eq!(lines("a\nc\n", "a\nb\nc\n"), [new("b")]);
        let (many, few) = ((0..20).map(|number| format!("{number}\n")).collect::<String>(), "0\n19\n");
        let shown = lines(&many, few);
        assert_eq!(shown.len(), LINES + 1);
        assert_eq!(shown[LINES], (Mark::More, "and 10 more lines".to_owned()));
    }

    #[test]
    fn of_a_long_line_the_part_is_shown_that_differs() {
        let line = |end: &str| format!("{}{end}{}", "前".repeat(100), "x".repeat(100));
        let shown = lines(&line("old"), &line("new"));
        assert!(
            shown[0].1.starts_with("…前") && shown[0].1.contains("前oldx") && shown[0].1.ends_with("x…"),
            "{shown:?}"
        );
        assert!(shown[1].1.contains("前newx") && report::width(&shown[1].1) <= LINE + 1, "{shown:?}");
    }
}
