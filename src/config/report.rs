//! What is found wrong while a pipeline is read.

use std::collections::{HashMap, HashSet};

use pipe_yaml::{Key, Node, Problem, Span, unknown_name_help};

/// Collects problems, so that reading goes on behind each of them.
#[derive(Default)]
pub(super) struct Report {
    problems: Vec<Problem>,
    /// Places of values that could not be made out. What a type says about them is no news.
    unknown: HashSet<Span>,
    /// Places of `${...}`, what stands there now, and where that comes from.
    substitutions: HashMap<Span, (String, Span)>,
    /// What else is to be said about a problem at a place.
    hints: HashMap<Span, String>,
}

impl Report {
    pub(super) fn add(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.extend([Problem { span: Some(span), message: message.into(), help }]);
    }

    pub(super) fn add_with_help(&mut self, span: Span, message: impl Into<String>, help: impl Into<String>) {
        self.add(span, message, Some(help.into()));
    }

    pub(super) fn extend(&mut self, problems: impl IntoIterator<Item = Problem>) {
        for mut problem in problems {
            let known = problem.span.is_some_and(|span| self.unknown.contains(&span));
            if known {
                continue;
            }
            let origin = problem.span.and_then(|span| self.substitutions.get(&span)).map(|(origin, _)| origin);
            let hint = problem.span.and_then(|span| self.hints.get(&span));
            for more in origin.into_iter().chain(hint) {
                let help = problem.help.take();
                problem.help = Some(help.map_or_else(|| more.clone(), |help| format!("{help}; {more}")));
            }
            self.problems.push(problem);
        }
    }

    /// Reports a problem with a value, and nothing more about that value.
    pub(super) fn give_up_on(&mut self, span: Span, message: impl Into<String>, help: Option<String>) {
        self.add(span, message, help);
        self.unknown.insert(span);
    }

    /// Says nothing more about a value, because it only follows from a problem elsewhere.
    pub(super) fn forget(&mut self, span: Span) {
        self.unknown.insert(span);
    }

    /// Notes what a `${...}` stands for, for problems with it, and where that value stands itself.
    pub(super) fn substituted(&mut self, span: Span, origin: String, from: Span) {
        self.substitutions.insert(span, (origin, from));
    }

    /// Where the value at `span` stands itself, if a `${...}` is there.
    pub(super) fn source_of(&self, span: Span) -> Span {
        self.substitutions.get(&span).map_or(span, |(_, from)| *from)
    }

    /// Adds to the help of any problem at `span`.
    pub(super) fn hint(&mut self, span: Span, text: String) {
        self.hints.insert(span, text);
    }

    /// Whether nothing more is to be said about the value at `span`.
    pub(super) fn is_unknown(&self, span: Span) -> bool {
        self.unknown.contains(&span)
    }

    pub(super) fn has_problems(&self) -> bool {
        !self.problems.is_empty()
    }

    /// How many problems there are so far: unchanged means that nothing went wrong in between.
    pub(super) fn count(&self) -> usize {
        self.problems.len() + self.unknown.len()
    }

    pub(super) fn into_problems(self) -> Vec<Problem> {
        self.problems
    }

    /// The entries of a mapping whose keys are free; reports anything else.
    pub(super) fn entries<'node>(&mut self, node: &'node Node, what: &str) -> Option<&'node [(Key, Node)]> {
        let entries = node.entries();
        if entries.is_none() {
            self.add(node.span, format!("expected {what}, found {}", node.describe()), None);
        }
        entries
    }

    /// The entries of a mapping whose keys are `fields`; reports other keys.
    pub(super) fn fields<'node, const COUNT: usize>(
        &mut self,
        node: &'node Node,
        what: &str,
        fields: [&str; COUNT],
    ) -> Option<[Option<&'node Node>; COUNT]> {
        let mut found = [None; COUNT];
        for (key, value) in self.entries(node, what)? {
            match fields.iter().position(|field| *field == key.name) {
                Some(index) => found[index] = Some(value),
                None => {
                    let help = unknown_name_help(&key.name, fields);
                    self.add(key.span, format!("unknown field `{}` of {what}", key.name), help);
                }
            }
        }
        Some(found)
    }
}
