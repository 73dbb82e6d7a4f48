//! A sample as text, token by token, broken at the width of the terminal.

use owo_colors::Style;
use pipe_samples::{IGNORED, Sample};
use pipe_text::Tokenizer;
use serde::Serialize;
use unicode_width::UnicodeWidthChar;

/// A character has at most so many tokens.
const LONGEST: usize = 8;

/// What stands before and behind the part that the loss counts, where there is no colour.
const MARKS: [char; 2] = ['⟦', '⟧'];

/// A token, or several that only together are text, as half of a Chinese character is none.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Piece {
    pub(super) ids: Vec<u32>,
    pub(super) text: String,
    /// Whether the loss counts it.
    pub(super) trained: bool,
    pub(super) special: bool,
}

/// The pieces of a sample. Without a tokenizer, the ids are their text.
pub(super) fn pieces(sample: &Sample, tokenizer: Option<&Tokenizer>) -> Vec<Piece> {
    let mut pieces = Vec::new();
    let mut at = 0;
    // Nothing predicts the first token.
    let trained = |index: usize| index > 0 && sample.labels[index] != IGNORED;
    while at < sample.input_ids.len() {
        let (length, text) = match tokenizer {
            Some(tokenizer) => whole_text(&sample.input_ids[at..], tokenizer),
            None => (1, format!("{} ", sample.input_ids[at])),
        };
        let ids = &sample.input_ids[at..at + length];
        let without = |tokenizer: &Tokenizer| tokenizer.decode(ids, true).is_ok_and(|text| text.is_empty());
        let special = !text.is_empty() && tokenizer.is_some_and(without);
        let text = if text.is_empty() { format!("<{}>", ids[0]) } else { text };
        pieces.push(Piece { ids: ids.to_vec(), text, trained: (at..at + length).any(trained), special });
        at += length;
    }
    pieces
}

/// The fewest tokens that are text, and that text.
fn whole_text(ids: &[u32], tokenizer: &Tokenizer) -> (usize, String) {
    let decode = |length: usize| tokenizer.decode(&ids[..length], false).unwrap_or_default();
    let longest = ids.len().min(LONGEST);
    let whole = (1..=longest).map(|length| (length, decode(length))).find(|(_, text)| !text.contains('\u{fffd}'));
    whole.unwrap_or_else(|| (1, decode(1)))
}

/// Text under construction: lines no wider than the terminal, each after two blanks.
struct Lines {
    text: String,
    column: usize,
    width: usize,
}

impl Lines {
    fn push(&mut self, shown: &str, style: Style) {
        let mut run = String::new();
        for letter in shown.chars() {
            let width = letter.width().unwrap_or(0);
            if letter == '\n' || self.column + width > self.width {
                self.text += &style.style(std::mem::take(&mut run)).to_string();
                self.text.push_str("\n  ");
                self.column = 2;
            }
            if letter != '\n' {
                run.push(letter);
                self.column += width;
            }
        }
        if !run.is_empty() {
            self.text += &style.style(run).to_string();
        }
    }
}

/// The pieces as one text. With colours, what the loss counts is green and each token differs from its neighbours; else it
/// stands between marks.
pub(super) fn text(pieces: &[Piece], width: usize, colours: bool) -> String {
    let mut lines = Lines { text: "  ".to_owned(), column: 2, width: width.max(20) };
    let mut marked = false;
    for (index, piece) in pieces.iter().enumerate() {
        if !colours && piece.trained != marked {
            lines.push(&MARKS[usize::from(marked)].to_string(), Style::new());
            marked = piece.trained;
        }
        let style = if colours { style(piece, index) } else { Style::new() };
        lines.push(&visible(&piece.text), style);
    }
    if marked {
        lines.push(&MARKS[1].to_string(), Style::new());
    }
    let lines: Vec<&str> = lines.text.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_end())
}

pub(super) fn style(piece: &Piece, index: usize) -> Style {
    let even = index.is_multiple_of(2);
    match (piece.trained, piece.special) {
        (true, true) => Style::new().black().on_bright_magenta(),
        (true, false) if even => Style::new().black().on_green(),
        (true, false) => Style::new().black().on_bright_green(),
        (false, true) => Style::new().magenta().dimmed(),
        (false, false) if even => Style::new(),
        (false, false) => Style::new().bright_black(),
    }
}

/// A text in which nothing hides: line ends and tabs have a sign, other control characters a number.
pub(super) fn visible(text: &str) -> String {
    let mut shown = String::new();
    for letter in text.chars() {
        match letter {
            '\n' => shown.push_str("↵\n"),
            '\t' => shown.push('⇥'),
            '\r' => shown.push('␍'),
            letter if letter.is_control() || is_directional(letter) => shown.extend(letter.escape_unicode()),
            letter => shown.push(letter),
        }
    }
    shown
}

/// Characters that would turn the rest of the line around.
fn is_directional(letter: char) -> bool {
    matches!(letter, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(text: &str, trained: bool, special: bool) -> Piece {
        Piece { ids: vec![1], text: text.to_owned(), trained, special }
    }

    #[test]
    fn lines_end_at_the_width_of_wide_characters() {
        let pieces = [piece("一二三四五六七八九十一二", false, false)];
        assert_eq!(text(&pieces, 20, false), "  一二三四五六七八九\n  十一二\n");
        let plain = anstream::adapter::strip_str(&text(&pieces, 20, true)).to_string();
        assert_eq!(plain, "  一二三四五六七八九\n  十一二\n");
    }

    #[test]
    fn what_is_trained_is_marked_and_nothing_hides() {
        let pieces = [
            piece("<|im_start|>", false, true),
            piece("user\n", false, false),
            piece("a\tb", true, false),
            piece("\u{1b}[2J\u{202e}", true, false),
            piece("<|im_end|>", true, true),
            piece("\n", false, false),
        ];
        assert_eq!(text(&pieces, 80, false), "  <|im_start|>user↵\n  ⟦a⇥b\\u{1b}[2J\\u{202e}<|im_end|>⟧↵\n");
        assert!(!text(&pieces, 80, true).contains('⟦'));
    }
}
