//! Checks of a configuration that its types cannot make: ranges, and what goes together.
//!
//! Fields that could not be read do not keep the others from being checked: the configuration is read once more without
//! them, and what is then wrong with a field that stands in the file is wrong in any case.

use std::collections::BTreeSet;

use pipe_stage::{Declaration, ParsedConfig, Problems};
use pipe_yaml::{Node, Problem, Span, Value};

use super::super::report::Report;

/// Checks `with:` of a stage with inputs of these names. `config` is what was read of it, or nothing if that failed with
/// problems at `failed`.
pub(super) fn check(
    declaration: &'static Declaration,
    (with, config): (&Node, Option<&ParsedConfig>),
    failed: &[Span],
    inputs: &BTreeSet<String>,
    report: &mut Report,
) {
    let is_bad = |span: Span| failed.contains(&span) || report.is_unknown(span);
    let whole = config.filter(|_| !contains(with, &is_bad));
    let found = match whole {
        Some(config) => validate(config, inputs),
        None => check_rest(declaration, with, &is_bad, inputs),
    };
    report.extend(found.into_iter().map(|(path, message, help)| Problem {
        span: Some(with.span_at(&path)),
        message: format!("{path}: {message}"),
        help,
    }));
}

/// A field (dots between the parts), what is wrong with it, what would be right.
type Found = (String, String, Option<String>);

fn validate(config: &ParsedConfig, inputs: &BTreeSet<String>) -> Vec<Found> {
    let mut problems = Problems::default();
    config.validate(inputs, &mut problems);
    problems.into_inner()
}

/// Checks a configuration without its bad fields. Where those matter, nothing is known.
fn check_rest(
    declaration: &'static Declaration,
    with: &Node,
    is_bad: &impl Fn(Span) -> bool,
    inputs: &BTreeSet<String>,
) -> Vec<Found> {
    let mut removed = Vec::new();
    let Some(rest) = without_bad(with, is_bad, &mut removed) else { return Vec::new() };
    let Ok(config) = declaration.parse(&rest) else { return Vec::new() };
    let independent = |text: &str| !words(text).any(|word| removed.iter().any(|field| field == word));
    let mut found = validate(&config, inputs);
    found.retain(|(path, message, help)| {
        stands(&rest, path) && independent(message) && help.as_deref().is_none_or(independent)
    });
    found
}

/// A mapping without the entries that are bad, whose keys go to `removed`. Nothing if it is bad as a whole.
fn without_bad(node: &Node, is_bad: &impl Fn(Span) -> bool, removed: &mut Vec<String>) -> Option<Node> {
    if is_bad(node.span) {
        return None;
    }
    let Value::Mapping(entries) = &node.value else { return (!contains(node, is_bad)).then(|| node.clone()) };
    let mut kept = Vec::with_capacity(entries.len());
    for (key, value) in entries {
        let value = if is_bad(key.span) { None } else { without_bad(value, is_bad, removed) };
        match value {
            Some(value) => kept.push((key.clone(), value)),
            None => removed.push(key.name.clone()),
        }
    }
    Some(Node { span: node.span, value: Value::Mapping(kept) })
}

/// Whether anything at or below a node is bad.
fn contains(node: &Node, is_bad: &impl Fn(Span) -> bool) -> bool {
    is_bad(node.span)
        || match &node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.iter().any(|item| contains(item, is_bad)),
            Value::Mapping(entries) => entries.iter().any(|(key, value)| is_bad(key.span) || contains(value, is_bad)),
        }
}

/// Whether a field is written, and does not take its default.
fn stands(node: &Node, path: &str) -> bool {
    path.split('.').try_fold(node, |node, part| node.get(part)).is_some()
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Whether a value is not known, or something in it.
pub(super) fn has_unknown(node: &Node, report: &Report) -> bool {
    contains(node, &|span| report.is_unknown(span))
}
