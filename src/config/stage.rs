//! One entry of `stages:` to a [`StageSpec`].

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use pipe_stage::{Declaration, ParsedConfig, Port, Problems, Resources};
use pipe_yaml::{Key, Node, Problem, Span, Value, unknown_name_help};
use serde::Deserialize;

use super::{InputRef, StageName, StageSpec, report::Report};

/// The fields of a stage.
pub(super) const FIELDS: [&str; 4] = ["kind", "with", "inputs", "resources"];

/// The fields of `resources:`.
#[derive(Debug, Default, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct ResourceFields {
    /// Threads, 1 to 1024. Default: the stage decides.
    #[schemars(range(min = 1, max = 1024))]
    cpus: Option<usize>,
    /// CUDA devices, 0 to 64; 0 runs on the CPU. Default 0.
    #[schemars(range(min = 0, max = 64))]
    gpus: usize,
}

/// The stages of a pipeline by name, as far as references need them.
pub(super) struct Known<'a> {
    /// Names in the order of the file, with the kind where that is known.
    pub(super) stages: IndexMap<&'a str, Option<&'static Declaration>>,
}

impl Known<'_> {
    fn names(&self) -> impl Iterator<Item = &str> {
        self.stages.keys().copied()
    }
}

/// The kind of a stage, if it can be made out; what is wrong with it is reported by [`read`].
pub(super) fn kind_of(node: &Node, registry: &'static [Declaration]) -> Option<&'static Declaration> {
    let kind = node.get("kind")?.as_text()?;
    registry.iter().find(|declaration| declaration.kind == kind)
}

/// Reads one stage. Gives nothing if there are problems, which are all reported.
pub(super) fn read(
    (key, node): (&Key, &Node),
    known: &Known<'_>,
    registry: &'static [Declaration],
    report: &mut Report,
) -> Option<StageSpec> {
    let before = report.count();
    let name = StageName::new(&key.name);
    if name.is_none() {
        let help = format!("use letters, digits, `_` and `-`, at most {}, not first a `-`", StageName::MAX_LENGTH);
        report.add_with_help(key.span, format!("`{}` is no name for a stage", key.name), help);
    }
    let [kind, with, inputs, resources] = report.fields(node, "a stage", FIELDS)?;
    let declaration = read_kind(kind, key.span, registry, report);
    let resources = resources.map_or_else(Resources::default, |node| read_resources(node, report));
    let with = with.cloned().unwrap_or_else(|| Node::empty_mapping(key.span));
    let stage = Stage { key, known };
    let inputs = stage.read_inputs(inputs, declaration, report);
    let config = declaration.and_then(|declaration| read_config(declaration, &with, &inputs, report));
    if report.count() != before {
        return None;
    }
    let config = config?;
    Some(StageSpec {
        name: name?,
        declaration: declaration?,
        config: config.value,
        user_files: config.user_files,
        file_spans: BTreeMap::new(),
        outputs: config.outputs,
        environment: config.environment,
        inputs,
        resources,
        retries: 0,
        timeout: None,
        checkout: BTreeMap::new(),
        span: key.span,
        with,
    })
}

fn read_kind(
    kind: Option<&Node>,
    stage: Span,
    registry: &'static [Declaration],
    report: &mut Report,
) -> Option<&'static Declaration> {
    let kinds = || registry.iter().map(|declaration| declaration.kind);
    let Some(node) = kind else {
        report.add(stage, "missing field `kind` of a stage", unknown_name_help("", kinds()));
        return None;
    };
    let Some(kind) = node.as_text() else {
        let message = format!("expected a kind of stage, found {}", node.describe());
        report.add(node.span, message, unknown_name_help("", kinds()));
        return None;
    };
    let declaration = registry.iter().find(|declaration| declaration.kind == kind);
    if declaration.is_none() {
        report.add(node.span, format!("unknown kind `{kind}`"), unknown_name_help(kind, kinds()));
    }
    declaration
}

fn read_resources(node: &Node, report: &mut Report) -> Resources {
    let fields: ResourceFields = match pipe_yaml::deserialize(node) {
        Ok(fields) => fields,
        Err(problems) => {
            report.extend(problems);
            return Resources::default();
        }
    };
    if fields.cpus.is_some_and(|cpus| !(1..=1024).contains(&cpus)) {
        report.add(node.span_at("cpus"), "cpus: must be 1 to 1024", None);
    }
    if fields.gpus > 64 {
        report.add(node.span_at("gpus"), "gpus: must be 0 to 64", None);
    }
    Resources { cpus: fields.cpus, gpus: fields.gpus, ..Resources::default() }
}

/// Reads `with:`, and checks its ranges.
fn read_config(
    declaration: &'static Declaration,
    with: &Node,
    inputs: &BTreeMap<String, Vec<InputRef>>,
    report: &mut Report,
) -> Option<ParsedConfig> {
    let config = match declaration.parse(with) {
        Ok(config) => config,
        Err(problems) => {
            report.extend(problems);
            return None;
        }
    };
    // A `${...}` that came to nothing is still its own text here: no range says anything about it.
    if !has_unknown(with, report) {
        let mut problems = Problems::default();
        config.validate(&inputs.keys().cloned().collect::<BTreeSet<_>>(), &mut problems);
        report.extend(problems.into_inner().into_iter().map(|(path, message, help)| Problem {
            span: Some(with.span_at(&path)),
            message: format!("{path}: {message}"),
            help,
        }));
    }
    Some(config)
}

fn has_unknown(node: &Node, report: &Report) -> bool {
    report.is_unknown(node.span)
        || match &node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.iter().any(|item| has_unknown(item, report)),
            Value::Mapping(entries) => entries.iter().any(|(_, value)| has_unknown(value, report)),
        }
}

/// The stage whose inputs are read.
struct Stage<'a> {
    key: &'a Key,
    known: &'a Known<'a>,
}

impl Stage<'_> {
    fn read_inputs(
        &self,
        node: Option<&Node>,
        declaration: Option<&'static Declaration>,
        report: &mut Report,
    ) -> BTreeMap<String, Vec<InputRef>> {
        let mut inputs = BTreeMap::new();
        let entries = match node.map(|node| report.entries(node, "a mapping of inputs to stages")) {
            Some(Some(entries)) => entries,
            Some(None) => return inputs,
            None => &[],
        };
        for (key, value) in entries {
            // Of an unknown kind, anything may be an input: its references are still worth checking.
            let port = declaration.map(|declaration| declaration.inputs.iter().find(|port| port.name == key.name));
            if let (Some(None), Some(declaration)) = (port, declaration) {
                let ports = declaration.inputs.iter().map(|port| port.name);
                let help = unknown_name_help(&key.name, ports).or_else(|| Some("it takes none".to_owned()));
                report.add(key.span, format!("`{}` has no input `{}`", declaration.kind, key.name), help);
            }
            let references = self.read_references(&key.name, value, port.flatten(), report);
            inputs.insert(key.name.clone(), references);
        }
        let ports = declaration.map_or(&[][..], |declaration| declaration.inputs);
        for port in ports.iter().filter(|port| port.required && !inputs.contains_key(port.name)) {
            let help = format!("it takes {}: add `{}: STAGE` to its `inputs`", port.holds, port.name);
            let span = node.map_or(self.key.span, |node| node.span);
            report.add(span, format!("the stage `{}` lacks the input `{}`", self.key.name, port.name), Some(help));
        }
        inputs
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
            report.add(node.span, format!("the input `{name}` has an empty list"), Some("name a stage".to_owned()));
        }
        items.iter().filter_map(|item| self.read_reference(item, report)).collect()
    }

    /// `STAGE` or `STAGE.OUTPUT`.
    fn read_reference(&self, node: &Node, report: &mut Report) -> Option<InputRef> {
        let Some(text) = node.as_text() else {
            let help = "write STAGE, or STAGE.OUTPUT where a stage makes several";
            report.add_with_help(node.span, format!("expected a stage, found {}", node.describe()), help);
            return None;
        };
        let (stage, output) = text.split_once('.').map_or((text, None), |(stage, output)| (stage, Some(output)));
        if stage == self.key.name {
            report.add(node.span, format!("the stage `{stage}` takes its own output"), None);
            return None;
        }
        let Some(declaration) = self.known.stages.get(stage) else {
            let others = self.known.names().filter(|name| *name != self.key.name);
            report.add(node.span, format!("unknown stage `{stage}`"), unknown_name_help(stage, others));
            return None;
        };
        let declaration = (*declaration)?;
        let written = |output: &&str| format!("`{stage}.{output}`");
        let output = match (output, declaration.outputs) {
            (Some(output), outputs) if outputs.contains(&output) => output,
            (Some(output), &[_]) => {
                let help = format!("it makes one output: write `{stage}`");
                report.add_with_help(node.span, format!("the stage `{stage}` has no output `{output}`"), help);
                return None;
            }
            (Some(output), outputs) => {
                let help = unknown_name_help(output, outputs.iter().copied());
                report.add(node.span, format!("the stage `{stage}` has no output `{output}`"), help);
                return None;
            }
            (None, &[only]) => only,
            (None, outputs) => {
                let help = format!("write {}", outputs.iter().map(written).collect::<Vec<_>>().join(" or "));
                report.add_with_help(node.span, format!("the stage `{stage}` makes several outputs"), help);
                return None;
            }
        };
        Some(InputRef { stage: StageName::new(stage)?, output: output.to_owned(), span: node.span })
    }
}
