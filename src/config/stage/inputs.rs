//! What a stage takes: outputs of other stages, and, for kinds with open inputs, files of the user's.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use pipe_stage::{Declaration, Form, Output, Port, UserFile, manifest::is_storable};
use pipe_yaml::{Key, Node, Span, Value, unknown_name_help};

use super::super::{InputRef, StageName, report::Report};

/// What begins the name of a file of the user's.
const FILE: &str = "file://";

/// So many stages of a matrix are listed in a help.
const MEMBERS_SHOWN: usize = 6;

/// The longest name of an input, in bytes.
const MAX_NAME_BYTES: usize = 255;

/// The stages of a pipeline by name, in the order of the file, with their outputs; `None` where those cannot be made
/// out, which is reported elsewhere.
pub(in super::super) struct Known<'a> {
    pub(super) stages: IndexMap<&'a str, Option<Vec<Output>>>,
    /// The stages that a matrix made, by the stage that has it; none if the matrix is wrong.
    pub(super) groups: Groups<'a>,
}

/// Names of stages and their values by axis, by the name of the stage with the matrix.
pub(in super::super) type Groups<'a> = IndexMap<&'a str, Vec<(String, Vec<(String, String)>)>>;

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

/// What a reference names.
struct Named<'known, 'text> {
    stages: Vec<&'known str>,
    output: Option<&'text str>,
    /// Whether it names them by the matrix that they are of, and leaves values open.
    several: bool,
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
                let (taken, several) = self.read_reference(node, true, report);
                if !several || taken.is_empty() {
                    inputs.taken.insert(name.to_owned(), taken);
                    return;
                }
                // A folder, in which each stands under its values, also if a matrix has one stage just now.
                for reference in taken {
                    let stage = reference.stage.as_str();
                    let member = stage.split_once('@').map_or(stage, |(_, values)| values);
                    let name = format!("{name}/{member}");
                    inputs.names.insert(name.clone());
                    inputs.taken.insert(name, vec![reference]);
                }
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
        let taken: Vec<InputRef> = items.iter().flat_map(|item| self.read_reference(item, false, report).0).collect();
        if let (Some(Port { list: false, .. }), [_, _, ..]) = (port, &taken[..]) {
            let message = format!("the input `{name}` takes one stage, and this stands for {}", taken.len());
            let first = taken[0].stage.as_str().split_once('@').map_or("", |(_, values)| values);
            let stage = taken[0].stage.matrix().unwrap_or_default();
            report.add_with_help(node.span, message, format!("choose by values: `\"{stage}[{first}]\"`"));
        }
        taken
    }

    /// `STAGE` or `STAGE.OUTPUT`; for the stages of a matrix, all of them, or those with some values: `STAGE[r=8]`.
    /// Where inputs are open, the form of the output matters. Also tells whether it may stand for several stages.
    fn read_reference(&self, node: &Node, open: bool, report: &mut Report) -> (Vec<InputRef>, bool) {
        let none = (Vec::new(), false);
        let Some(text) = node.as_text() else {
            let help = "write STAGE, or STAGE.OUTPUT where a stage makes several";
            report.add_with_help(node.span, format!("expected a stage, found {}", node.describe()), help);
            return none;
        };
        if text.starts_with(FILE) {
            let help =
                format!("name a stage that brings it in: `{{ kind: download, with: {{ source: \"{text}\" }} }}`");
            report.add_with_help(node.span, format!("expected a stage, found the file `{text}`"), help);
            return none;
        }
        let Some(Named { stages, output, several }) = self.stages_named(text, node.span, report) else { return none };
        let mut taken = Vec::with_capacity(stages.len());
        for stage in stages {
            if stage == self.key.name {
                report.add(node.span, format!("the stage `{stage}` takes its own output"), None);
                return none;
            }
            // What is wrong with one stage of a matrix is wrong with all.
            let Some(reference) = self.read_output(stage, output, open, node.span, report) else { return none };
            taken.push(reference);
        }
        (taken, several)
    }

    /// The stages that a reference names, and the output.
    fn stages_named<'text>(&self, text: &'text str, span: Span, report: &mut Report) -> Option<Named<'_, 'text>> {
        // Values of a matrix may have dots too, so the longest name that is one wins.
        let dots = text.rmatch_indices('.').map(|(at, _)| at);
        for end in std::iter::once(text.len()).chain(dots) {
            let output = text.get(end + 1..);
            if let Some((stage, _)) = self.known.stages.get_key_value(&text[..end]) {
                return Some(Named { stages: vec![stage], output, several: false });
            }
            if let Some(members) = self.known.groups.get(&text[..end]) {
                let stages = members.iter().map(|(name, _)| name.as_str()).collect();
                return Some(Named { stages, output, several: true });
            }
        }
        if let Some((stage, rest)) = text.split_once('[')
            && let Some(members) = self.known.groups.get(stage)
            && let Some((values, output)) = rest.split_once(']')
            && (output.is_empty() || output.starts_with('.'))
        {
            let axes = members.first().map_or(0, |(_, labels)| labels.len());
            let stages = choose(stage, values, members, span, report)?;
            let several = values.split(',').count() < axes;
            return Some(Named { stages, output: output.strip_prefix('.'), several });
        }
        let stage = text.split(['.', '[']).next().unwrap_or(text);
        let others = self.known.stages.keys().copied().filter(|name| *name != self.key.name);
        let help = unknown_name_help(stage, others.chain(self.known.groups.keys().copied()));
        report.add(span, format!("unknown stage `{stage}`"), help);
        None
    }

    fn read_output(
        &self,
        stage: &str,
        output: Option<&str>,
        open: bool,
        span: Span,
        report: &mut Report,
    ) -> Option<InputRef> {
        let Some(outputs) = self.known.stages.get(stage)?.as_deref() else {
            // What is wrong there is reported there; that this stage waits for it is certain all the same.
            let output = output.unwrap_or("out").to_owned();
            return Some(InputRef { stage: StageName::new(stage)?, output, form: Form::Folder, span });
        };
        let found = output.map_or(outputs.first(), |output| outputs.iter().find(|known| known.name == output));
        let taken = match (found, output, outputs) {
            (Some(_), None, [_, _, ..]) => {
                let written: Vec<_> = outputs.iter().map(|output| format!("`{stage}.{}`", output.name)).collect();
                let help = format!("write {}", written.join(" or "));
                report.add_with_help(span, format!("the stage `{stage}` makes several outputs"), help);
                return None;
            }
            (Some(taken), ..) => taken,
            (None, output, outputs) => {
                let output = output.unwrap_or("out");
                let help = match outputs {
                    [_] => Some(format!("it makes one output: write `{stage}`")),
                    outputs => unknown_name_help(output, outputs.iter().map(|output| output.name.as_str())),
                };
                report.add(span, format!("the stage `{stage}` has no output `{output}`"), help);
                return None;
            }
        };
        let form = if open { taken.form } else { Form::Folder };
        Some(InputRef { stage: StageName::new(stage)?, output: taken.name.clone(), form, span })
    }
}

/// Those of a matrix's stages that have these values: `AXIS=VALUE,...`.
fn choose<'known>(
    stage: &str,
    values: &str,
    members: &'known [(String, Vec<(String, String)>)],
    span: Span,
    report: &mut Report,
) -> Option<Vec<&'known str>> {
    let mut chosen: Vec<&(String, Vec<(String, String)>)> = members.iter().collect();
    for pair in values.split(',') {
        let (axis, value) =
            pair.split_once('=').map_or((pair.trim(), None), |(axis, value)| (axis.trim(), Some(value.trim())));
        let axes = members.first().into_iter().flat_map(|(_, labels)| labels).map(|(axis, _)| axis.as_str());
        if !axes.clone().any(|known| known == axis) {
            // A matrix that is wrong itself is reported where it stands.
            if !members.is_empty() {
                report.add(
                    span,
                    format!("the matrix of `{stage}` has no axis `{axis}`"),
                    unknown_name_help(axis, axes),
                );
            }
            return None;
        }
        let Some(value) = value else {
            report.add_with_help(
                span,
                format!("`{pair}` gives no value"),
                format!("write `\"{stage}[{axis}=VALUE]\"`"),
            );
            return None;
        };
        chosen.retain(|(_, labels)| labels.iter().any(|(known, label)| known == axis && label == value));
    }
    if chosen.is_empty() {
        let known: Vec<&str> =
            members.iter().map(|(name, _)| name.split_once('@').map_or("", |(_, values)| values)).collect();
        let shown = known.iter().take(MEMBERS_SHOWN).map(|values| format!("[{values}]")).collect::<Vec<_>>().join(", ");
        let more = if known.len() > MEMBERS_SHOWN { ", ..." } else { "" };
        report.add_with_help(
            span,
            format!("no stage of the matrix of `{stage}` has {values}"),
            format!("there are {shown}{more}"),
        );
        return None;
    }
    Some(chosen.into_iter().map(|(name, _)| name.as_str()).collect())
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
