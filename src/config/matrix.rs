//! `matrix`: a stage for each combination of listed values.
//!
//! ```yaml
//! adapter:
//!   matrix: { learning_rate: [1e-4, 2e-4], r: [8, 16] }
//!   with: { learning_rate: "${matrix.learning_rate}", lora: { r: "${matrix.r}" } }
//! ```
//! makes four stages, `adapter@learning_rate=1e-4,r=8` and so on, in the order in which one would count. `exclude` lists
//! combinations that are left out, `include` such as are added.

use std::collections::HashSet;

use pipe_stage::{Digest, name};
use pipe_yaml::{Key, Node, Span, Value, unknown_name_help};

use super::{
    StageName,
    params::{MATRIX, is_name, name_help},
    report::Report,
};

/// So many stages one matrix may make.
const MAX_MEMBERS: usize = 10_000;

/// Longer values are cut in names, in characters.
const MAX_VALUE_CHARACTERS: usize = 32;

/// A stage of a matrix.
#[derive(Debug, Clone)]
pub(super) struct Member {
    /// `STAGE@AXIS=VALUE,...`
    pub(super) name: String,
    /// The values by axis, as they stand in the name.
    pub(super) labels: Vec<(String, String)>,
    /// The values by axis: what `${matrix.AXIS}` stands for.
    pub(super) values: Node,
}

struct Axis<'a> {
    name: &'a str,
    values: Vec<(String, &'a Node)>,
}

type Combination<'a> = Vec<(String, &'a Node)>;

/// The members that `matrix`, in which parameters are put in, makes of a stage. None if there are problems.
pub(super) fn expand(stage: &Key, matrix: &Node, report: &mut Report) -> Vec<Member> {
    let before = report.count();
    let Some(entries) = report.entries(matrix, "a mapping of axes to lists of values") else { return Vec::new() };
    let (mut axes, mut exclude, mut include) = (Vec::new(), None, None);
    for (key, node) in entries {
        match key.name.as_str() {
            "exclude" => exclude = Some(node),
            "include" => include = Some(node),
            _ => axes.extend(axis(key, node, report)),
        }
    }
    if axes.is_empty() && report.count() == before {
        report.add_with_help(matrix.span, "the matrix has no axes", "write `matrix: { NAME: [VALUE, ...] }`");
    }
    let total = axes.iter().fold(1_usize, |total, axis| total.saturating_mul(axis.values.len()));
    if total > MAX_MEMBERS {
        let message = format!("the matrix makes {total} stages, and may make {MAX_MEMBERS}");
        report.add_with_help(matrix.span, message, "list fewer values, or vary one thing at a time");
    }
    if report.count() != before {
        return Vec::new();
    }
    let mut combinations = product(&axes);
    for left_out in listed(exclude, "exclude", &axes, false, report) {
        combinations.retain(|combination| !matches(combination, &left_out));
    }
    for added in listed(include, "include", &axes, true, report) {
        combinations.push(added.into_iter().map(|(_, label, node)| (label, node)).collect());
    }
    if combinations.is_empty() && report.count() == before {
        report.add_with_help(matrix.span, "the matrix makes no stage", "`exclude` fewer combinations");
    }
    let mut seen = HashSet::new();
    let members: Vec<Member> = combinations.iter().map(|combination| member(stage, &axes, combination)).collect();
    for member in &members {
        if !seen.insert(member.name.as_str()) {
            let message = format!("the matrix makes the stage `{}` twice", member.name);
            report.add_with_help(matrix.span, message, "list each combination once");
        }
    }
    if report.count() == before { members } else { Vec::new() }
}

fn axis<'a>(key: &'a Key, node: &'a Node, report: &mut Report) -> Option<Axis<'a>> {
    if !is_name(&key.name) {
        report.add_with_help(key.span, format!("`{}` is no name for an axis", key.name), name_help(&key.name));
        return None;
    }
    let items = match &node.value {
        Value::Sequence(items) if !items.is_empty() => items,
        _ => {
            let found =
                if matches!(&node.value, Value::Sequence(_)) { "an empty list".to_owned() } else { node.describe() };
            let message = format!("expected a list of values for the axis `{}`, found {found}", key.name);
            report.add_with_help(node.span, message, format!("write `{}: [VALUE, ...]`", key.name));
            return None;
        }
    };
    let values: Vec<(String, &Node)> =
        items.iter().enumerate().map(|(index, value)| (label(value, index), value)).collect();
    let mut seen = HashSet::new();
    for (label, value) in &values {
        if !seen.insert(label) {
            let message = format!("the axis `{}` lists `{label}` twice", key.name);
            report.add_with_help(value.span, message, "list each value once");
        }
    }
    Some(Axis { name: &key.name, values })
}

/// How a value stands in a name: a single value as it is written, a mapping by its `name`, anything else by its place.
/// What is not safe in the name of a file, or too long, is replaced, with a digest that keeps it apart from others.
fn label(value: &Node, index: usize) -> String {
    let text = match value.as_text().or_else(|| value.get("name").and_then(Node::as_text)) {
        Some(text) => text,
        None if value.is_null() => "null",
        None => return index.to_string(),
    };
    let safe: String = name::normal_form(text).chars().map(|c| if StageName::is_label(c) { c } else { '_' }).collect();
    let short: String = safe.chars().take(MAX_VALUE_CHARACTERS).collect();
    if short == text { short } else { format!("{short}-{}", &Digest::of(text.as_bytes()).to_string()[..6]) }
}

fn product<'a>(axes: &[Axis<'a>]) -> Vec<Combination<'a>> {
    axes.iter().fold(vec![Vec::new()], |combinations, axis| {
        let with_each = |combination: &Combination<'a>| {
            let longer = axis.values.iter().map(|value| [combination.as_slice(), std::slice::from_ref(value)].concat());
            longer.collect::<Vec<_>>()
        };
        combinations.iter().flat_map(with_each).collect()
    })
}

/// The combinations that `include` or `exclude` list: index of the axis, label, value.
fn listed<'a>(
    node: Option<&'a Node>,
    field: &str,
    axes: &[Axis<'_>],
    whole: bool,
    report: &mut Report,
) -> Vec<Vec<(usize, String, &'a Node)>> {
    let items = match node.map(|node| (node, &node.value)) {
        None => return Vec::new(),
        Some((_, Value::Sequence(items))) => items,
        Some((node, _)) => {
            let help = format!("write `{field}: [{{ AXIS: VALUE, ... }}, ...]`");
            report.add_with_help(node.span, format!("expected a list, found {}", node.describe()), help);
            return Vec::new();
        }
    };
    items.iter().filter_map(|item| combination(item, axes, whole, report)).collect()
}

fn combination<'a>(
    item: &'a Node,
    axes: &[Axis<'_>],
    whole: bool,
    report: &mut Report,
) -> Option<Vec<(usize, String, &'a Node)>> {
    let before = report.count();
    let mut found = Vec::new();
    for (key, value) in report.entries(item, "a mapping of axes to values")? {
        match axes.iter().position(|axis| axis.name == key.name) {
            Some(at) => found.push((at, label(value, axes[at].values.len()), value)),
            None => {
                let help = unknown_name_help(&key.name, axes.iter().map(|axis| axis.name));
                report.add(key.span, format!("the matrix has no axis `{}`", key.name), help);
            }
        }
    }
    found.sort_by_key(|(at, ..)| *at);
    let missing = axes.iter().enumerate().find(|(at, _)| found.iter().all(|(known, ..)| known != at));
    if let Some((_, axis)) = missing.filter(|_| whole) {
        let message = format!("this combination gives no value for the axis `{}`", axis.name);
        report.add_with_help(item.span, message, "give one for every axis");
    }
    (report.count() == before).then_some(found)
}

/// Whether a combination has all the values of `part`.
fn matches(combination: &Combination<'_>, part: &[(usize, String, &Node)]) -> bool {
    part.iter().all(|(at, label, _)| combination[*at].0 == *label)
}

fn member(stage: &Key, axes: &[Axis<'_>], combination: &Combination<'_>) -> Member {
    let labels: Vec<(String, String)> =
        axes.iter().zip(combination).map(|(axis, (label, _))| (axis.name.to_owned(), label.clone())).collect();
    let key = |name: &str, span: Span| Key { span, name: name.to_owned() };
    let values = axes.iter().zip(combination).map(|(axis, (_, value))| (key(axis.name, value.span), (*value).clone()));
    let values = Node { span: stage.span, value: Value::Mapping(values.collect()) };
    Member { name: StageName::of_member(&stage.name, &labels), labels, values }
}

/// A stage without its `matrix`.
pub(super) fn without(stage: &Node) -> Node {
    let mut stage = stage.clone();
    if let Value::Mapping(entries) = &mut stage.value {
        entries.retain(|(key, _)| key.name != MATRIX);
    }
    stage
}
