//! Two answers side by side.

use pipe_chat::Voice;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::talk::{Answered, harmless};

/// Columns narrower than this are no help: the answers stand one below the other.
const NARROWEST: usize = 30;
/// Between the columns.
const GAP: &str = "  │ ";

/// The answers with their names: in columns where the terminal has room, else one below the other.
pub(super) fn beside(answers: &[(Voice, Answered)]) -> String {
    let width = terminal_size::terminal_size_of(std::io::stdout()).map(|(width, _)| usize::from(width.0));
    let text = |text: &str| if width.is_some() { harmless(text) } else { text.to_owned() };
    let texts: Vec<(&str, String)> =
        answers.iter().map(|(voice, answered)| (name(*voice), text(answered.text.trim_end()))).collect();
    let column = width.map_or(0, |width| width.saturating_sub(GAP.width()) / 2);
    match &texts[..] {
        [one, other] if column >= NARROWEST => table(one, other, column),
        _ => texts.iter().map(|(name, text)| format!("{name}:\n{text}\n")).collect::<Vec<_>>().join("\n"),
    }
}

fn name(voice: Voice) -> &'static str {
    match voice {
        Voice::Base => "base",
        Voice::Tuned => "tuned",
    }
}

fn table(one: &(&str, String), other: &(&str, String), width: usize) -> String {
    let column = |(name, text): &(&str, String)| {
        let lines = text.lines().flat_map(|line| wrapped(line, width));
        [(*name).to_owned(), "─".repeat(name.width())].into_iter().chain(lines).collect::<Vec<_>>()
    };
    let (left, right) = (column(one), column(other));
    let empty = String::new();
    let mut table = String::new();
    for row in 0..left.len().max(right.len()) {
        let (left, right) = (left.get(row).unwrap_or(&empty), right.get(row).unwrap_or(&empty));
        let padding = " ".repeat(width.saturating_sub(left.width()));
        table += format!("{left}{padding}{GAP}{right}").trim_end();
        table.push('\n');
    }
    table
}

/// A line in pieces of at most so many columns, between words where there are some. Chinese has none.
fn wrapped(line: &str, width: usize) -> Vec<String> {
    let line = line.replace('\t', "    ");
    let mut lines = vec![String::new()];
    for word in line.split_inclusive(' ') {
        let taken = lines.last().map_or(0, |line| line.width());
        if taken > 0 && taken + word.trim_end().width() > width && word.trim_end().width() <= width {
            lines.push(String::new());
        }
        for character in word.chars() {
            let taken = lines.last().map_or(0, |line| line.width());
            // A space may be lost at the end of a line.
            if taken + character.width().unwrap_or(0) > width {
                if character == ' ' {
                    continue;
                }
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(character);
            }
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_characters_look() {
        let table = table(&("base", "一二三四五\nof two words".to_owned()), &("tuned", "five".to_owned()), 8);
        let expected =
            "base      │ tuned\n────      │ ─────\n一二三四  │ five\n五        │\nof two    │\nwords     │\n";
        assert_eq!(table, expected);
        assert_eq!(wrapped("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
