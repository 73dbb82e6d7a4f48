//! Where a stage's outputs are put once they are up to date: `outputs`. Not in any key.

use std::{
    collections::{BTreeMap, HashSet},
    path::{Component, Path, PathBuf},
};

use pipe_stage::Output;
use pipe_yaml::{Key, Node, Span, Value, unknown_name_help};

use super::super::{StageSpec, report::Report};

/// Where copies of outputs are put, by output name, as written and with its place in the text.
pub(super) type Written = BTreeMap<String, (PathBuf, Span)>;

/// Reads `outputs:` of a stage that makes `outputs`; nothing is known of those if they are `None`.
pub(super) fn read(stage: &Key, node: &Node, outputs: Option<&[Output]>, report: &mut Report) -> Written {
    let mut written = Written::new();
    let mut put = |output: &str, node: &Node, report: &mut Report| match node.as_text() {
        Some(path) if !path.is_empty() && !path.contains('\0') => {
            written.insert(output.to_owned(), (path.into(), node.span));
        }
        _ => report.add_with_help(
            node.span,
            format!("expected a path, found {}", node.describe()),
            "a path relative to the pipeline file, where a copy of the output is put",
        ),
    };
    match &node.value {
        Value::Mapping(entries) => {
            for (key, node) in entries {
                let names = outputs.map(|outputs| outputs.iter().map(|output| output.name.as_str()));
                if let Some(names) = names.filter(|names| !names.clone().any(|name| name == key.name)) {
                    let help = unknown_name_help(&key.name, names);
                    report.add(key.span, format!("the stage `{}` has no output `{}`", stage.name, key.name), help);
                } else {
                    put(&key.name, node, report);
                }
            }
        }
        _ => match outputs {
            Some([only]) => put(&only.name, node, report),
            Some(several) => {
                let names: Vec<_> = several.iter().map(|output| format!("{}: PATH", output.name)).collect();
                let message = format!("the stage `{}` makes several outputs", stage.name);
                report.add_with_help(node.span, message, format!("write `{{ {} }}`", names.join(", ")));
            }
            None => {}
        },
    }
    written
}

/// All places of a pipeline that its stages write to or read from, to tell whether they get into each other's way.
#[derive(Default)]
pub(in super::super) struct Places<'a>(Vec<Place<'a>>);

struct Place<'a> {
    /// Absolute, without `.` and `..`.
    path: PathBuf,
    /// As written.
    text: PathBuf,
    stage: &'a str,
    /// Where it stands, of an output; an input's place is none to complain about.
    output: Option<Span>,
}

impl<'a> Places<'a> {
    /// Notes what a stage of a pipeline in `folder` writes and reads.
    pub(super) fn add(&mut self, stage: &'a str, folder: &Path, spec: &StageSpec, written: &Written) {
        let place =
            |text: &PathBuf, output| Place { path: plain(&folder.join(text)), text: text.clone(), stage, output };
        self.0.extend(written.values().map(|(path, span)| place(path, Some(*span))));
        self.0.extend(spec.user_files.iter().map(|file| place(&file.path, None)));
    }

    /// Reports outputs that would replace the pipeline file, what a stage reads, or each other.
    pub(in super::super) fn check(mut self, pipeline: &Path, report: &mut Report) {
        if self.0.iter().all(|place| place.output.is_none()) {
            return;
        }
        let pipeline = plain(pipeline);
        self.0.retain(|place| {
            let clear = !pipeline.starts_with(&place.path) && !place.path.starts_with(&pipeline);
            if let (false, Some(span)) = (clear, place.output) {
                let what = if place.path == pipeline { "is" } else { "holds" };
                let message =
                    format!("`{}` {what} the pipeline file, which no output may replace", place.text.display());
                report.add_with_help(span, message, "name a file or folder of its own, such as `results/NAME`");
            }
            clear
        });
        // By components: what lies in a folder comes right behind it.
        self.0.sort_by(|one, other| one.path.cmp(&other.path));
        let mut around: Vec<&Place<'_>> = Vec::new();
        let mut blamed = HashSet::new();
        for place in &self.0 {
            while around.last().is_some_and(|outer| !place.path.starts_with(&outer.path)) {
                around.pop();
            }
            let clash = |outer: &&&Place<'_>| outer.output.is_some() || place.output.is_some();
            if let Some(outer) = around.iter().rev().find(clash) {
                complain(outer, place, &mut blamed, report);
            }
            around.push(place);
        }
    }
}

/// Reports two places of which one lies in the other or is the same. At least one of them is of an output.
/// A place is blamed once: a folder may hold many.
fn complain(outer: &Place<'_>, inner: &Place<'_>, blamed_before: &mut HashSet<Span>, report: &mut Report) {
    // Of two outputs, the one that comes later in the file is to move.
    let (span, blamed, other) = match (outer.output, inner.output) {
        (Some(one), Some(two)) if one.start > two.start => (one, outer, inner),
        (Some(one), None) => (one, outer, inner),
        (_, Some(two)) => (two, inner, outer),
        (None, None) => return,
    };
    if !blamed_before.insert(span) {
        return;
    }
    let relation = match () {
        () if outer.path == inner.path => "is",
        () if std::ptr::eq(blamed, outer) => "holds",
        () => "lies in",
    };
    let use_of_other = if other.output.is_some() { "puts an output" } else { "reads a file of yours" };
    let (place, of_other) = (blamed.text.display(), other.text.display());
    let relation = match blamed.text == other.text {
        true => "is".to_owned(),
        false => format!("{relation} `{of_other}`,"),
    };
    let message = format!("`{place}` {relation} where the stage `{}` {use_of_other}", other.stage);
    report.add_with_help(span, message, "give each a file or folder of its own");
}

/// The same path without `.` and `..`, by its text alone: what it leads to need not exist.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            component => plain.push(component),
        }
    }
    plain
}
