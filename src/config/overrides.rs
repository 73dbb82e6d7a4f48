//! `--set PATH=VALUE`: values of the command line in the place of values of the file.
//!
//! Overrides come before parameters are put in, so one may itself say `${name}`.

use pipe_yaml::{Key, Node, Span, Value, unknown_name_help};

use super::{Source, report::Report, stage};

/// Puts every override into the document, and lays its text out behind the file's.
pub(super) fn apply(root: &mut Node, overrides: &[(String, String)], source: &mut Source, report: &mut Report) {
    for (path, value) in overrides {
        let base = source.push_override(format!("{path}={value}"));
        let target = Target { path, span: Span { start: base, end: base + path.len() } };
        match pipe_yaml::parse(if value.trim().is_empty() { "''" } else { value }) {
            Ok(mut node) => {
                node.shift(base + path.len() + 1);
                node.span.end = node.span.end.min(base + path.len() + 1 + value.len());
                target.set(root, node, report);
            }
            Err(problems) => report.extend(problems.into_iter().map(|mut problem| {
                let mut span = problem.span.unwrap_or_default();
                span.shift(base + path.len() + 1);
                problem.span = Some(span);
                problem
            })),
        }
    }
}

/// What stands before the `=`.
struct Target<'a> {
    path: &'a str,
    span: Span,
}

impl Target<'_> {
    fn set(&self, root: &mut Node, value: Node, report: &mut Report) {
        let parts: Vec<&str> = self.path.split('.').collect();
        if parts.iter().any(|part| part.trim().is_empty()) {
            let help = "write --set NAME=VALUE for a param, or --set stages.STAGE.with.FIELD=VALUE";
            return report.add_with_help(self.span, format!("`{}` is no path to a value", self.path), help);
        }
        match parts.as_slice() {
            ["name"] => self.insert(root, &parts, value, report),
            ["params", name, ..] => self.set_param(root, name, &parts, value, report),
            ["stages", stage, field, ..] => match self.check_stage(root, stage, field) {
                Ok(()) => self.insert(root, &parts, value, report),
                Err((message, help)) => report.add(self.span, message, help),
            },
            ["params"] | ["stages", ..] => {
                let help = "set one value: params.NAME, or stages.STAGE.with.FIELD";
                report.add_with_help(self.span, format!("`{}` cannot be set as a whole", self.path), help);
            }
            [name, ..] => self.set_param(root, name, &[&["params"], parts.as_slice()].concat(), value, report),
            [] => {}
        }
    }

    fn set_param(&self, root: &mut Node, name: &str, parts: &[&str], value: Node, report: &mut Report) {
        let params = root.get("params").and_then(Node::entries).unwrap_or_default();
        if params.iter().any(|(key, _)| key.name == name) {
            return self.insert(root, parts, value, report);
        }
        let help = unknown_name_help(name, params.iter().map(|(key, _)| key.name.as_str()))
            .unwrap_or_else(|| "the pipeline has no params; a field is set by stages.STAGE.with.FIELD".to_owned());
        report.add_with_help(self.span, format!("the pipeline has no param `{name}`"), help);
    }

    fn check_stage(&self, root: &Node, stage: &str, field: &str) -> Result<(), (String, Option<String>)> {
        let stages = root.get("stages").and_then(Node::entries).unwrap_or_default();
        if !stages.iter().any(|(key, _)| key.name == stage) {
            let help = unknown_name_help(stage, stages.iter().map(|(key, _)| key.name.as_str()));
            return Err((format!("the pipeline has no stage `{stage}`"), help));
        }
        if !stage::FIELDS.contains(&field) {
            let message = format!("a stage has no `{field}`");
            return Err((message, unknown_name_help(field, stage::FIELDS)));
        }
        Ok(())
    }

    /// Walks down, making the mappings that are not there yet. A field of a wrong name is found when it meets its type.
    fn insert(&self, root: &mut Node, parts: &[&str], value: Node, report: &mut Report) {
        let mut node = root;
        for part in parts {
            node = match child(node, part, self.span) {
                Ok(child) => child,
                Err((message, help)) => return report.add(self.span, message, help),
            };
        }
        *node = value;
    }
}

fn child<'node>(node: &'node mut Node, part: &str, span: Span) -> Result<&'node mut Node, (String, Option<String>)> {
    let found = node.describe();
    match &mut node.value {
        Value::Mapping(entries) => {
            let index = match entries.iter().position(|(key, _)| key.name == part) {
                Some(index) => index,
                None => {
                    entries.push((Key { span, name: part.to_owned() }, Node::empty_mapping(span)));
                    entries.len() - 1
                }
            };
            Ok(&mut entries[index].1)
        }
        Value::Sequence(items) => {
            let length = items.len();
            part.parse::<usize>().ok().and_then(|index| items.get_mut(index)).ok_or_else(|| {
                (format!("the list has no item `{part}`"), Some(format!("it has {length} items, counted from 0")))
            })
        }
        Value::Scalar { .. } => {
            Err((format!("there is no `{part}` in {found}, which is neither a mapping nor a list"), None))
        }
    }
}
