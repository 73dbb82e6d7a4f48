//! `params:` and `${...}`: values with names.
//!
//! A value that is nothing but `${name}` becomes the parameter's value, whatever its type, in quotes or not (in
//! `{ }` and `[ ]` YAML wants the quotes). Inside a longer text the parameter is written out, as if it had been
//! typed there. `$${` stands for the characters `${`.

use std::{collections::HashMap, path::Path};

use pipe_stage::name::{self, NameError};
use pipe_yaml::{Key, MAX_BYTES, MAX_DEPTH, MAX_NODES, Node, Span, Value, unknown_name_help};

use super::{Source, report::Report};

/// The parameters of a pipeline, each resolved when it is first asked for.
pub(super) struct Params<'a> {
    source: &'a Source,
    given: HashMap<&'a str, &'a Node>,
    /// In the order of the file, for suggestions.
    names: Vec<&'a str>,
    /// What `${matrix...}` stands for, in a member of a matrix.
    member: Option<Node>,
    resolved: HashMap<&'a str, Option<Node>>,
    /// Parameters whose values are being resolved, each for the sake of the one before.
    pending: Vec<&'a str>,
    /// Values put in so far.
    nodes: usize,
    /// Bytes written out so far.
    bytes: usize,
    /// Whether a bound was exceeded: then nothing is put in any more.
    exhausted: bool,
}

/// The name under which a member of a matrix finds its values.
pub(super) const MATRIX: &str = "matrix";

/// A part of a text.
enum Piece<'text> {
    Literal(&'text str),
    Reference(&'text str),
}

impl<'a> Params<'a> {
    /// The parameters in the node of `params:`.
    pub(super) fn new(source: &'a Source, params: Option<&'a Node>, report: &mut Report) -> Self {
        let entries = params.and_then(|node| report.entries(node, "a mapping of params to values")).unwrap_or_default();
        for (key, _) in entries {
            if key.name == MATRIX {
                let help = "give it another name";
                report.add_with_help(key.span, "`matrix` stands for the values of a stage's matrix", help);
            } else if !is_name(&key.name) {
                report.add_with_help(key.span, format!("`{}` is no name for a param", key.name), name_help(&key.name));
            }
        }
        Self {
            source,
            given: entries.iter().map(|(key, value)| (key.name.as_str(), value)).collect(),
            names: entries.iter().map(|(key, _)| key.name.as_str()).collect(),
            member: None,
            resolved: HashMap::new(),
            pending: Vec::new(),
            nodes: 0,
            bytes: 0,
            exhausted: false,
        }
    }

    /// Resolves every parameter, so that errors in those that nobody uses are found too.
    pub(super) fn check(&mut self, report: &mut Report) {
        for name in self.names.clone() {
            self.resolve(name, report);
        }
    }

    /// The same for a member of a matrix: `${matrix.AXIS}` is its value of that axis.
    pub(super) fn interpolate_member(&mut self, node: &Node, member: Node, report: &mut Report) -> Node {
        self.member = Some(member);
        let node = self.interpolate(node, report);
        self.member = None;
        node
    }

    /// The same node with every `${...}` in it replaced.
    pub(super) fn interpolate(&mut self, node: &Node, report: &mut Report) -> Node {
        let value = match &node.value {
            Value::Scalar { text, quoted } => return self.scalar(node, text, *quoted, report),
            Value::Sequence(items) => {
                Value::Sequence(items.iter().map(|item| self.interpolate(item, report)).collect())
            }
            Value::Mapping(entries) => {
                let entries = entries.iter().map(|(key, value)| (key.clone(), self.interpolate(value, report)));
                Value::Mapping(entries.collect::<Vec<(Key, Node)>>())
            }
        };
        Node { span: node.span, value }
    }

    fn scalar(&mut self, node: &Node, text: &str, quoted: bool, report: &mut Report) -> Node {
        if !text.contains("${") {
            return node.clone();
        }
        let Some(pieces) = split(text) else {
            let help = "close it by `}`, or write `$${` for the characters `${`".to_owned();
            report.give_up_on(node.span, "`${` is not closed", Some(help));
            return node.clone();
        };
        if let [Piece::Reference(path)] = pieces.as_slice() {
            let Some(value) = self.lookup(path, node.span, report) else { return node.clone() };
            let origin = self.origin(path, &value);
            report.substituted(node.span, origin, value.span);
            return Node { span: node.span, ..value };
        }
        let mut written = String::new();
        for piece in pieces {
            match piece {
                Piece::Literal(literal) => written.push_str(literal),
                Piece::Reference(path) => {
                    let Some(value) = self.lookup(path, node.span, report) else { return node.clone() };
                    let Some(value) = value.as_text() else {
                        let message =
                            format!("`${{{path}}}` is {}, which cannot stand inside a text", value.describe());
                        report.give_up_on(node.span, message, None);
                        return node.clone();
                    };
                    written.push_str(value);
                }
            }
        }
        Node { span: node.span, value: Value::Scalar { text: written, quoted } }
    }

    /// The value at a path: a parameter, or something in one (`model.name`, `prompts.0`).
    fn lookup(&mut self, path: &str, span: Span, report: &mut Report) -> Option<Node> {
        if self.exhausted {
            report.forget(span);
            return None;
        }
        let mut parts = path.split('.');
        let name = parts.next().unwrap_or_default();
        if name == MATRIX {
            let member = self.member.clone();
            if member.is_none() {
                let help = "give the stage a `matrix: { AXIS: [VALUE, ...] }`".to_owned();
                report.give_up_on(span, format!("`${{{path}}}` stands in no stage with a matrix"), Some(help));
            }
            return self.within(member?, path, parts, span, report);
        }
        let Some((&name, _)) = self.given.get_key_value(name) else {
            let message = match is_name(name) {
                true => format!("undefined param `{name}`"),
                false => format!("`${{{path}}}` names no param"),
            };
            let help = match unknown_name_help(name, self.names.iter().copied()) {
                _ if self.member.as_ref().is_some_and(|member| member.get(name).is_some()) => {
                    format!("the value of the axis is `${{{MATRIX}.{path}}}`")
                }
                Some(help) => help,
                None => "define it under `params:` at the top of the file".to_owned(),
            };
            let help = match is_shell_variable(name) {
                true => format!("{help}; a variable of the shell is written `${name}` or `$${{{name}}}`"),
                false => help,
            };
            report.give_up_on(span, message, Some(help));
            return None;
        };
        let value = match self.resolve(name, report) {
            Some(value) => value,
            None => {
                // Said where the parameter is defined; this place only follows from it.
                report.forget(span);
                return None;
            }
        };
        self.within(value, path, parts, span, report)
    }

    /// What `parts` lead to in a value, which `path` names as a whole.
    fn within<'text>(
        &mut self,
        mut value: Node,
        path: &str,
        parts: impl Iterator<Item = &'text str>,
        span: Span,
        report: &mut Report,
    ) -> Option<Node> {
        for part in parts {
            let inner = match &value.value {
                Value::Mapping(entries) => entries.iter().find(|(key, _)| key.name == part).map(|(_, inner)| inner),
                Value::Sequence(items) => part.parse().ok().and_then(|index: usize| items.get(index)),
                Value::Scalar { .. } => None,
            };
            let Some(inner) = inner else {
                let names = value.entries().unwrap_or_default().iter().map(|(key, _)| key.name.as_str());
                let help = unknown_name_help(part, names);
                report.give_up_on(span, format!("`${{{path}}}`: there is no `{part}` in it"), help);
                return None;
            };
            value = inner.clone();
        }
        let extent = Extent::of(&value);
        self.nodes = self.nodes.saturating_add(extent.nodes);
        self.bytes = self.bytes.saturating_add(extent.bytes);
        if self.nodes > MAX_NODES || self.bytes > MAX_BYTES || extent.depth > MAX_DEPTH {
            // Params of params multiply like aliases of aliases.
            self.exhausted = true;
            let help = "params that repeat params multiply: repeat less".to_owned();
            report.give_up_on(span, "the params blow this pipeline up beyond all bounds", Some(help));
            return None;
        }
        Some(value)
    }

    fn resolve(&mut self, name: &'a str, report: &mut Report) -> Option<Node> {
        if let Some(resolved) = self.resolved.get(name) {
            return resolved.clone();
        }
        let node = *self.given.get(name)?;
        if let Some(start) = self.pending.iter().position(|pending| *pending == name) {
            let circle = [&self.pending[start..], &[name]].concat().join(" -> ");
            report.give_up_on(
                node.span,
                format!("params refer to each other in a circle: {circle}"),
                Some("give one of them a value".to_owned()),
            );
            return None;
        }
        if self.pending.len() >= MAX_DEPTH {
            self.exhausted = true;
            let message = format!("more than {MAX_DEPTH} params refer to each other in a row");
            report.give_up_on(node.span, message, None);
            return None;
        }
        self.pending.push(name);
        let before = report.count();
        let value = self.interpolate(node, report);
        self.pending.pop();
        let resolved = (report.count() == before).then_some(value);
        self.resolved.insert(name, resolved.clone());
        resolved
    }

    /// Where a value comes from, for errors at the place where it is used.
    fn origin(&self, path: &str, value: &Node) -> String {
        let place = self.source.locate(value.span);
        let place = match place.origin.as_str() {
            "--set" => format!("given by `--set {}`", place.text),
            file if self.source.path() != Path::new(file) => format!("from line {} of {file}", place.line),
            _ => format!("from line {}", place.line),
        };
        format!("`${{{path}}}` is {}, {place}", value.describe())
    }
}

/// Letters, digits, `_` and `-`, not first a digit or `-`. No dots: they lead into a value.
pub(super) fn is_name(text: &str) -> bool {
    // Nothing is named after it, so it may be longer than other names.
    !text.starts_with(char::is_numeric) && matches!(name::check(text), Ok(()) | Err(NameError::Length))
}

/// What would be a name instead of a text that is none.
pub(super) fn name_help(text: &str) -> String {
    match name::check(text) {
        Err(form @ NameError::Form(_)) => form.to_string(),
        _ => "use letters, digits, `_` and `-`, and start with a letter or `_`".to_owned(),
    }
}

/// Whether text is a name as shells have them: upper-case letters, digits and `_`.
fn is_shell_variable(text: &str) -> bool {
    text.starts_with(|first: char| first.is_ascii_uppercase())
        && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Takes a text apart; nothing if a `${` is not closed.
fn split(text: &str) -> Option<Vec<Piece<'_>>> {
    let mut pieces = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        if let Some(before) = rest[..at].strip_suffix('$') {
            pieces.extend([Piece::Literal(before), Piece::Literal("${")]);
            rest = &rest[at + 2..];
            continue;
        }
        let length = rest[at..].find('}')?;
        if at > 0 {
            pieces.push(Piece::Literal(&rest[..at]));
        }
        pieces.push(Piece::Reference(rest[at + 2..at + length].trim()));
        rest = &rest[at + length + 1..];
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest));
    }
    Some(pieces)
}

/// The size of a value.
struct Extent {
    /// Values in it, itself included.
    nodes: usize,
    /// Lists and mappings in each other.
    depth: usize,
    /// Bytes of text.
    bytes: usize,
}

impl Extent {
    fn of(node: &Node) -> Self {
        let children: Vec<&Node> = match &node.value {
            Value::Scalar { text, .. } => return Self { nodes: 1, depth: 0, bytes: text.len() },
            Value::Sequence(items) => items.iter().collect(),
            Value::Mapping(entries) => entries.iter().map(|(_, value)| value).collect(),
        };
        children.into_iter().map(Self::of).fold(Self { nodes: 1, depth: 1, bytes: 0 }, |whole, child| Self {
            nodes: whole.nodes + child.nodes,
            depth: whole.depth.max(child.depth + 1),
            bytes: whole.bytes + child.bytes,
        })
    }
}
