//! Problems as people see them: the place, the line, a caret, what would be right.

use std::fmt;

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, MietteError, MietteSpanContents, SourceCode,
    SourceSpan, SpanContents,
};
use pipe_yaml::{Problem, Span};

use super::{ConfigError, Location, Source, error::count};

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
            text.push_str(&problem.message);
        }
        text.push('\n');
    }
    text.push_str(&format!("{}: {}\n", given.path().display(), count(problems.len())));
    text
}

/// One problem in the form that miette draws.
struct Shown<'a> {
    problem: &'a Problem,
    excerpt: Option<Excerpt<'a>>,
}

/// The first line of a place.
struct Excerpt<'a> {
    location: Location<'a>,
    span: Span,
    line: Span,
}

impl<'a> Excerpt<'a> {
    fn new(given: &'a Source, span: Span) -> Self {
        let location = given.locate(span);
        let text = location.text;
        let start = text[..location.span.start].rfind('\n').map_or(0, |newline| newline + 1);
        let end =
            text[location.span.start..].find(['\n', '\r']).map_or(text.len(), |length| location.span.start + length);
        let marked = Span { start: location.span.start, end: location.span.end.clamp(location.span.start, end) };
        Self { location, span: marked, line: Span { start, end } }
    }
}

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.problem.fmt(formatter)
    }
}

impl fmt::Display for Shown<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.problem.message)
    }
}

impl std::error::Error for Shown<'_> {}

impl Diagnostic for Shown<'_> {
    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.problem.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
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
        let text = self.location.text.as_bytes();
        let line = text.get(self.line.start..self.line.end).ok_or(MietteError::OutOfBounds)?;
        // Lines of context are asked for with the excerpt, none with the place in the header.
        let column = if context_lines_before == 0 { self.location.column - 1 } else { 0 };
        Ok(Box::new(MietteSpanContents::new_named(
            self.location.origin.clone(),
            line,
            (self.line.start, line.len()).into(),
            self.location.line - 1,
            column,
            1,
        )))
    }
}
