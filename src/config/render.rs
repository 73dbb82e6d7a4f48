//! Problems as people see them: the place, the line, a caret, what would be right.

use std::{borrow::Cow, fmt};

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};
use pipe_yaml::{Problem, Span};

use super::{ConfigError, Location, Source, error::count};

/// Of a longer line, only the part around the place is shown, in bytes.
const LONGEST_LINE: usize = 240;

/// So much of that part stands before the place.
const BEFORE: usize = 80;

/// Where a line was cut off.
const CUT: &str = "... ";

/// Shows an error in full: every problem of the file at its place. `color` for a terminal that takes it; `width` in
/// characters.
pub fn render(error: &ConfigError, color: bool, width: usize) -> String {
    let ConfigError::Invalid { given, problems } = error else { return format!("{error}\n") };
    let theme = if color { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let handler = GraphicalReportHandler::new_themed(theme).with_width(width).with_context_lines(1);
    let mut text = String::new();
    for problem in problems {
        let shown = Shown { problem, excerpt: problem.span.map(|span| Excerpt::new(given, span)) };
        // Writing to a string does not fail; if the handler itself gives up, the words are still worth something.
        if handler.render_report(&mut text, &shown).is_err() {
            text.push_str(&shown.to_string());
        }
        text.push('\n');
    }
    let file = given.path().display().to_string();
    text.push_str(&format!("{}: {}\n", visible(&file), count(problems.len())));
    text
}

/// A text whose control characters, which could steer a terminal, are written as escapes.
fn visible(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { String::from(c) };
    Cow::Owned(text.chars().map(escape).collect())
}

/// The same for a line in which places are counted in bytes: what replaces a character is as long as it.
fn visible_in_place(line: &str) -> String {
    let replace = |c: char| match c {
        '\t' => '\t',
        c if c.is_control() && c.is_ascii() => '?',
        c if c.is_control() => '·',
        c => c,
    };
    line.chars().map(replace).collect()
}

/// One problem in the form that miette draws.
struct Shown<'a> {
    problem: &'a Problem,
    excerpt: Option<Excerpt<'a>>,
}

/// The first line of a place, or the part of it that is shown.
struct Excerpt<'a> {
    location: Location<'a>,
    span: Span,
    /// Where `shown` would begin.
    start: usize,
    shown: String,
}

impl<'a> Excerpt<'a> {
    fn new(given: &'a Source, span: Span) -> Self {
        let location = given.locate(span);
        let text = location.text;
        let start = text[..location.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let end =
            text[location.span.start..].find(['\n', '\r']).map_or(text.len(), |length| location.span.start + length);
        let place = location.span.start;
        let mut from = start;
        let mut to = end;
        if end - start > LONGEST_LINE {
            // What stands for the part before takes room that this part had.
            let before = place.saturating_sub(BEFORE);
            from = if before > start + CUT.len() { text.floor_char_boundary(before) } else { start };
            to = text.floor_char_boundary(end.min(from + LONGEST_LINE));
        }
        let (lead, trail) = (if from > start { CUT } else { "" }, if to < end { CUT } else { "" });
        let shown = format!("{lead}{}{trail}", visible_in_place(&text[from..to]));
        let span = Span { start: place, end: location.span.end.clamp(place, to) };
        Self { location, span, start: from - lead.len(), shown }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(formatter)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&visible(&self.problem.message))
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(visible(help)) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        self.excerpt.as_ref().map(|excerpt| excerpt as &dyn SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let span = self.excerpt.as_ref()?.span;
        Some(Box::new(std::iter::once(LabeledSpan::new(None, span.start, span.end - span.start))))
    }
}

/// One line is all that is ever shown, whatever is asked for. miette's own sources count columns in bytes; these
/// count characters, as editors do.
impl SourceCode for Excerpt<'_> {
    fn read_span<'a>(
        &'a self,
        _: &SourceSpan,
        context_lines_before: usize,
        _: usize,
    ) -> Result<Box<dyn SpanContents<'a> + 'a>, MietteError> {
        let line = self.shown.as_bytes();
        // Lines of context are asked for with the excerpt, none with the place in the header.
        let column = if context_lines_before == 0 { self.location.column - 1 } else { 0 };
        Ok(Box::new(MietteSpanContents::new_named(
            visible(&self.location.origin).into_owned(),
            line,
            (self.start, line.len()).into(),
            self.location.line - 1,
            column,
            1,
        )))
    }
}
