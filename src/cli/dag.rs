//! `pipe dag`: the graph of stages, for people (text), for documents (Mermaid) and for Graphviz (DOT).

use clap::{Args, ValueEnum};
use serde_json::json;

use super::{CliError, Exit, pipeline::PipelineArguments, pipeline::print, pipeline::print_json};
use crate::{
    config::{InputRef, Pipeline, StageName, StageSpec},
    graph::Graph,
    report,
};

/// Arguments of `pipe dag`.
#[derive(Args)]
pub(super) struct Dag {
    #[command(flatten)]
    pipeline: PipelineArguments,
    /// How to draw it
    #[arg(long, value_enum, default_value_t)]
    format: DagFormat,
}

#[derive(Clone, Copy, Default, ValueEnum)]
enum DagFormat {
    #[default]
    Text,
    Mermaid,
    Dot,
    Json,
}

impl Dag {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let pipeline = self.pipeline.load()?;
        let graph = Graph::new(&pipeline)?;
        match self.format {
            DagFormat::Text => print(&text(&pipeline, &graph))?,
            DagFormat::Mermaid => print(&mermaid(&pipeline, &graph))?,
            DagFormat::Dot => print(&dot(&pipeline, &graph))?,
            DagFormat::Json => print_json(&json(&pipeline, &graph))?,
        }
        Ok(Exit::Done)
    }
}

/// The stages in the order of the work.
fn stages<'a>(pipeline: &'a Pipeline, graph: &'a Graph) -> impl Iterator<Item = &'a StageSpec> {
    graph.order().filter_map(|name| pipeline.stages.get(name))
}

/// `(input name, reference)` of a stage, in a fixed order.
fn inputs(stage: &StageSpec) -> impl Iterator<Item = (&str, &InputRef)> {
    stage.inputs.iter().flat_map(|(port, sources)| sources.iter().map(move |source| (port.as_str(), source)))
}

/// How a pipeline names an output: `parts.train`, or just `tokens`.
fn reference(input: &InputRef) -> String {
    if input.output == "out" { input.stage.to_string() } else { format!("{}.{}", input.stage, input.output) }
}

/// A line a stage: name, kind, and what it takes from where.
fn text(pipeline: &Pipeline, graph: &Graph) -> String {
    let name_width = pipeline.stages.keys().map(|name| report::width(name.as_str())).max().unwrap_or(0);
    let kind_width = pipeline.stages.values().map(|stage| stage.declaration.kind.len()).max().unwrap_or(0);
    let mut text = String::new();
    for stage in stages(pipeline, graph) {
        let takes: Vec<String> = inputs(stage).map(|(port, source)| format!("{port}: {}", reference(source))).collect();
        let arrow = if takes.is_empty() { "" } else { "  <- " };
        let name = report::padded(stage.name.as_str(), name_width);
        let line = format!("{name}  {:kind_width$}{arrow}{}", stage.declaration.kind, takes.join(", "));
        text += line.trim_end();
        text.push('\n');
    }
    text
}

// Names of stages have no quotes and no backslashes, which are safe in both languages in quotes. Names of inputs, which
// may be paths, can have them.

/// A text in quotes in Mermaid.
fn in_mermaid(text: &str) -> String {
    report::printable(text).replace('#', "#35;").replace('"', "#quot;")
}

/// A stage in Mermaid, which knows neither quotes here nor what a matrix puts into names; `end` is a word of it.
fn id(stage: &StageName) -> String {
    let mut id = "s_".to_owned();
    for c in stage.as_str().chars() {
        match c {
            'a'..='z' | 'A'..='Z' | '0'..='9' | '_' | '-' => id.push(c),
            other => id += &format!("_{:x}_", u32::from(other)),
        }
    }
    id
}

fn mermaid(pipeline: &Pipeline, graph: &Graph) -> String {
    let mut text = "flowchart TD\n".to_owned();
    for stage in stages(pipeline, graph) {
        text += &format!("    {}[\"{}<br/><i>{}</i>\"]\n", id(&stage.name), stage.name, stage.declaration.kind);
    }
    for stage in stages(pipeline, graph) {
        for (port, source) in inputs(stage) {
            text += &format!("    {} -->|\"{}\"| {}\n", id(&source.stage), in_mermaid(port), id(&stage.name));
        }
    }
    text
}

fn dot(pipeline: &Pipeline, graph: &Graph) -> String {
    let mut text = format!("digraph {} {{\n    node [shape=box];\n", json!(pipeline.name));
    for stage in stages(pipeline, graph) {
        text += &format!("    \"{0}\" [label=\"{0}\\n{1}\"];\n", stage.name, stage.declaration.kind);
    }
    for stage in stages(pipeline, graph) {
        for (port, source) in inputs(stage) {
            text += &format!("    \"{}\" -> \"{}\" [label={}];\n", source.stage, stage.name, json!(port));
        }
    }
    text + "}\n"
}

fn json(pipeline: &Pipeline, graph: &Graph) -> serde_json::Value {
    let stage = |stage: &StageSpec| {
        let inputs: serde_json::Map<String, serde_json::Value> = stage
            .inputs
            .iter()
            .map(|(port, sources)| (port.clone(), sources.iter().map(reference).collect()))
            .collect();
        let outputs: Vec<&str> = stage.outputs.iter().map(|output| output.name.as_str()).collect();
        json!({ "stage": stage.name, "kind": stage.declaration.kind, "inputs": inputs, "outputs": outputs })
    };
    json!({ "name": pipeline.name, "stages": stages(pipeline, graph).map(stage).collect::<Vec<_>>() })
}
