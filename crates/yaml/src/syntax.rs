//! What the YAML parser does not understand, in words that say what to do.

use crate::{Problem, Span};

/// A failure of the parser at byte `at` of `text`, which starts at `base` in its source, in words that help.
pub(crate) fn explain(text: &str, base: usize, at: usize, info: &str) -> Problem {
    if let Some(tab) = indenting_tab(text, at).or_else(|| text[..at].ends_with('\t').then(|| at - 1)) {
        let span = Span { start: base + tab, end: base + tab + 1 };
        return problem(span, "a tab stands where YAML wants spaces", "replace the tab by spaces");
    }
    let rest = text[at..].chars().next().filter(|next| !next.is_control());
    let end = at + rest.map_or(0, char::len_utf8);
    let span = Span { start: base + at, end: base + end };
    let line_start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
    let line = text[line_start..].lines().next().unwrap_or_default();
    if line.contains("${") && info.contains("flow") {
        return problem(
            span,
            "the `{` of `${...}` starts a mapping here",
            "inside `{ }` and `[ ]`, quote a value that has `${...}` in it",
        );
    }
    match EXPLAINED.iter().find(|(fragment, ..)| info.contains(fragment)) {
        Some((_, message, help)) => problem(span, *message, *help),
        None => Problem { span: Some(span), message: format!("this is not valid YAML: {}", info), help: None },
    }
}

/// A problem with a place and a help.
pub(crate) fn problem(span: Span, message: impl Into<String>, help: impl Into<String>) -> Problem {
    Problem { span: Some(span), message: message.into(), help: Some(help.into()) }
}

/// The line of a byte, from 1.
pub(crate) fn line_of(text: &str, offset: usize) -> usize {
    text[..offset].matches('\n').count() + 1
}

/// Parts of the parser's messages, and what they are about.
const EXPLAINED: &[(&str, &str, &str)] = &[
    (
        "mapping values are not allowed",
        "a `:` stands where no value can follow",
        "quote a text that has `: ` in it, and check the indentation of this line and the one before",
    ),
    ("unknown anchor", "the alias names no anchor", "quote a text that starts with `*`"),
    ("anchor or alias", "a `*` or `&` without a name", "quote a text that starts with `*` or `&`"),
    ("unexpected end of stream", "a quoted text is not closed", "add the closing quote"),
    (
        "indentation in quoted",
        "a quoted text is not closed",
        "add the closing quote, or indent the lines that it goes on in",
    ),
    ("unknown escape", "an unknown escape in double quotes", "write `\\\\` for a backslash, or use single quotes"),
    ("unexpected character", "a text cannot start with this character", "quote the text"),
    ("block sequence entries", "a list cannot start here", "start it on a line of its own, or write `[a, b]`"),
    (
        "simple key",
        "a line of a mapping has no `:`",
        "write `key: value`, and indent what goes on from the line before",
    ),
    ("indentation in flow", "a `{` or `[` above is not closed", "close it, or indent what is in it"),
    ("expected key", "the line is indented like nothing above it", "indent it like the lines that it stands beside"),
    ("flow mapping", "a `,` or `}` is missing", "separate entries by `, ` and close every `{`"),
    ("flow sequence", "a `,` or `]` is missing", "separate items by `, ` and close every `[`"),
    ("illegal placement of ':'", "a `:` stands where no value can follow", "close the `[` or `{` before it"),
    ("recursion limit", "too many brackets lie in each other here", "nest less deeply"),
];

/// A tab before what a line says: the line of `at`, the one behind it or the one before, as the parser may notice late
/// or early.
fn indenting_tab(text: &str, at: usize) -> Option<usize> {
    let line = line_of(text, at);
    let mut offset = 0;
    let mut tabs = [None; 3];
    for (number, content) in (1..).zip(text.split_inclusive('\n')).take(line + 1) {
        let indent = content.len() - content.trim_start_matches([' ', '\t']).len();
        let blank = content[indent..].trim_end().is_empty() || content[indent..].starts_with('#');
        if let (false, Some(rank)) = (blank, [line, line + 1, line - 1].iter().position(|near| *near == number)) {
            tabs[rank] = content[..indent].find('\t').map(|tab| offset + tab);
        }
        offset += content.len();
    }
    tabs.into_iter().flatten().next()
}
