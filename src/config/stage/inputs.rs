//! What a stage takes: outputs of other stages, and, for kinds with open inputs, files of the user's.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use pipe_stage::{Declaration, Form, Output, Port, UserFile, manifest::is_storable};
use pipe_yaml::{Key, Node, Span, Value, unknown_name_help};

use super::super::{InputRef, StageName, report::Report};

/// What begins the name of a file of the user's.
const FILE: &str = "file://";

/// The longest name of an input, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The stages of a pipeline by name, in the order of the file, with their outputs; `None` where those cannot be made
/// out, which is reported elsewhere.
pub(in super::super) struct Known<'a> {
    pub(super) stages: IndexMap<&'a str, Option<Vec<Output>>>,
}

/// The inputs of one stage.
#[derive(Default)]
pub(super) struct Inputs {
    /// Outputs of other stages, by input name.
    pub(super) taken: BTreeMap<String, Vec<InputRef>>,
    /// Files of the user's.
    pub(super) files: Vec<UserFile>,
    /// Where those are named, by their fields.
    pub(super) file_spans: BTreeMap<String, Span>,
    /// The names of all.
    pub(super) names: BTreeSet<String>,
}

/// The stage whose inputs are read.
pub(super) struct Taker<'a> {
    pub(super) key: &'a Key,
    pub(super) declaration: Option<&'static Declaration>,
    pub(super) known: &'a Known<'a>,
}

impl Taker<'_> {
    pub(super) fn read(&self, node: Option<&Node>, report: &mut Report) -> Inputs {
        let mut inputs = Inputs::default();
        let entries = match node.map(|node| report.entries(node, "a mapping of inputs to stages")) {
            Some(Some(entries)) => entries,
            Some(None) => return inputs,
            None => &[],
        };
        let mut open = Vec::new();
        for (key, value) in entries {
            // Of an unknown kind, anything may be an input: its references are still worth checking.
            let port = |declaration: &Declaration| declaration.inputs.iter().find(|port| port.name == key.name);
            match self.declaration.map(|declaration| (declaration, port(declaration))) {
                Some((declaration, None)) if declaration.open_inputs => {
                    open.push(key);
                    self.read_open(&key.name, value, &mut inputs, report);
                    continue;
                }
                Some((declaration, None)) => {
                    let ports = declaration.inputs.iter().map(|port| port.name);
                    let help = unknown_name_help(&key.name, ports).or_else(|| Some("it takes none".to_owned()));
                    report.add(key.span, format!("`{}` has no input `{}`", declaration.kind, key.name), help);
                    self.read_port(&key.name, value, None, &mut inputs, report);
                }
                Some((_, port)) => self.read_port(&key.name, value, port, &mut inputs, report),
                None => self.read_port(&key.name, value, None, &mut inputs, report),
            }
        }
        check_places(&open, &inputs.names, report);
        let ports = self.declaration.map_or(&[][..], |declaration| declaration.inputs);
        for port in ports.iter().filter(|port| port.required && !inputs.names.contains(port.name)) {
            let help = format!("it takes {}: add `{}: STAGE` to its `inputs`", port.holds, port.name);
            let span = node.map_or(self.key.span, |node| node.span);
            report.add(span, format!("the stage `{}` lacks the input `{}`", self.key.name, port.name), Some(help));
        }
        inputs
    }

    /// An input of a name that the kind leaves to the pipeline. A list is a folder whose entries are numbered.
    fn read_open(&self, name: &str, node: &Node, inputs: &mut Inputs, report: &mut Report) {
        if let Value::Sequence(items) = &node.value {
            if items.is_empty() {
                report.add_with_help(node.span, format!("the input `{name}` has an empty list"), "name a stage");
            }
            for (index, item) in items.iter().enumerate() {
                self.read_open_item(&format!("{name}/{index}"), item, inputs, report);
            }
        } else {
            self.read_open_item(name, node, inputs, report);
        }
    }

    fn read_open_item(&self, name: &str, node: &Node, inputs: &mut Inputs, report: &mut Report) {
        if !inputs.names.insert(name.to_owned()) {
            let message = format!("the input `{name}` is there already, as an entry of a list");
            report.add_with_help(node.span, message, "give it another name");
            return;
        }
        match node.as_text().and_then(|text| text.split_once("://")) {
            Some(("file", "")) => report.add_with_help(node.span, "it names no file", "write file://PATH"),
            Some(("file", path)) => {
                let field = format!("inputs.{name}");
                inputs.file_spans.insert(field.clone(), node.span);
                inputs.files.push(UserFile { field, path: path.into() });
            }
            Some((scheme, _)) => {
                let help = "write file://PATH for a file of this machine; bring others in by a `download` stage";
                report.add_with_help(node.span, format!("an input cannot be a {scheme}:// address"), help);
            }
            None => {
                let taken = self.read_reference(node, true, report);
                inputs.taken.insert(name.to_owned(), taken.into_iter().collect());
            }
        }
    }

    fn read_port(&self, name: &str, node: &Node, port: Option<&Port>, inputs: &mut Inputs, report: &mut Report) {
        inputs.names.insert(name.to_owned());
        let taken = self.read_references(name, node, port, report);
        inputs.taken.insert(name.to_owned(), taken);
    }

    fn read_references(&self, name: &str, node: &Node, port: Option<&Port>, report: &mut Report) -> Vec<InputRef> {
        let items = match &node.value {
            Value::Sequence(items) if port.is_none_or(|port| port.list) => items.as_slice(),
            Value::Sequence(_) => {
                report.add_with_help(
                    node.span,
                    format!("the input `{name}` takes one stage, found a list"),
                    "name one",
                );
                return Vec::new();
            }
            _ => std::slice::from_ref(node),
        };
        if items.is_empty() {
            report.add_with_help(node.span, format!("the input `{name}` has an empty list"), "name a stage");
        }
        items.iter().filter_map(|item| self.read_reference(item, false, report)).collect()
    }

    /// `STAGE` or `STAGE.OUTPUT`. Where inputs are open, the form of the output matters.
    fn read_reference(&self, node: &Node, open: bool, report: &mut Report) -> Option<InputRef> {
        let Some(text) = node.as_text() else {
            let help = "write STAGE, or STAGE.OUTPUT where a stage makes several";
            report.add_with_help(node.span, format!("expected a stage, found {}", node.describe()), help);
            return None;
        };
        if text.starts_with(FILE) {
            let help =
                format!("name a stage that brings it in: `{{ kind: download, with: {{ source: \"{text}\" }} }}`");
            report.add_with_help(node.span, format!("expected a stage, found the file `{text}`"), help);
            return None;
        }
        let (stage, output) = text.split_once('.').map_or((text, None), |(stage, output)| (stage, Some(output)));
        if stage == self.key.name {
            report.add(node.span, format!("the stage `{stage}` takes its own output"), None);
            return None;
        }
        let Some(outputs) = self.known.stages.get(stage) else {
            let others = self.known.stages.keys().copied().filter(|name| *name != self.key.name);
            report.add(node.span, format!("unknown stage `{stage}`"), unknown_name_help(stage, others));
            return None;
        };
        let outputs = outputs.as_deref()?;
        let found = output.map_or(outputs.first(), |output| outputs.iter().find(|known| known.name == output));
        let taken = match (found, output, outputs) {
            (Some(_), None, [_, _, ..]) => {
                let written: Vec<_> = outputs.iter().map(|output| format!("`{stage}.{}`", output.name)).collect();
                let help = format!("write {}", written.join(" or "));
                report.add_with_help(node.span, format!("the stage `{stage}` makes several outputs"), help);
                return None;
            }
            (Some(taken), ..) => taken,
            (None, output, outputs) => {
                let output = output.unwrap_or("out");
                let help = match outputs {
                    [_] => Some(format!("it makes one output: write `{stage}`")),
                    outputs => unknown_name_help(output, outputs.iter().map(|output| output.name.as_str())),
                };
                report.add(node.span, format!("the stage `{stage}` has no output `{output}`"), help);
                return None;
            }
        };
        let form = if open { taken.form } else { Form::Folder };
        Some(InputRef { stage: StageName::new(stage)?, output: taken.name.clone(), form, span: node.span })
    }
}

/// Open names are places in a folder: each must be one, and none may lie in another.
fn check_places(keys: &[&Key], names: &BTreeSet<String>, report: &mut Report) {
    for key in keys {
        let name = &key.name;
        if !is_storable(name) || name.contains(char::is_control) || name.len() > MAX_NAME_BYTES {
            let help = format!("use a relative path without `..`, at most {MAX_NAME_BYTES} bytes");
            report.add_with_help(key.span, format!("`{}` is no name for an input", name.escape_debug()), help);
            continue;
        }
        let mut within = name.match_indices('/').map(|(at, _)| &name[..at]);
        if let Some(outer) = within.find(|outer| names.contains(*outer)) {
            let message = format!("the input `{name}` would lie in the input `{outer}`");
            report.add_with_help(key.span, message, "give them names of which none begins with the other and a `/`");
        }
    }
}
