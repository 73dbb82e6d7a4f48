//! `extends: base.yaml`: a pipeline that says only in what it differs from another.
//!
//! Mappings are merged key by key; lists and single values replace what the base has; `~` takes a key away. A stage
//! whose kind is another one than in the base replaces the base's stage. Relative paths in a base start from its own
//! folder. The name is not inherited.

use std::path::{Path, PathBuf};

use pipe_yaml::{Key, Node, Parsed, Value, unknown_name_help};

use super::{ConfigError, Source, point_at_keys, report::Report};

/// The field.
pub(super) const FIELD: &str = "extends";

/// So many files may extend each other in a row.
const MAX_DEPTH: usize = 32;

/// Reads the files that are extended.
pub(super) type Reader<'a> = &'a dyn Fn(&Path) -> Result<String, ConfigError>;

/// A file that is being read, and the way to it.
struct File<'a> {
    /// As it is shown.
    path: &'a Path,
    /// Absolute.
    folder: &'a Path,
    /// The file that extends it.
    by: Option<&'a File<'a>>,
}

/// Puts the pipeline `root` of the file `source` in `folder` on top of what it extends. `false` if that cannot be read:
/// then nothing else can be said of the pipeline.
pub(super) fn apply(
    root: &mut Node,
    source: &mut Source,
    folder: &Path,
    read: Reader<'_>,
    report: &mut Report,
) -> bool {
    let path = source.path().to_owned();
    let file = File { path: &path, folder, by: None };
    resolve(root, &file, source, read, report)
}

fn resolve(root: &mut Node, file: &File<'_>, source: &mut Source, read: Reader<'_>, report: &mut Report) -> bool {
    let Value::Mapping(entries) = &mut root.value else { return true };
    let Some(at) = entries.iter().position(|(key, _)| key.name == FIELD) else { return true };
    let (_, named) = entries.remove(at);
    let items = match &named.value {
        Value::Sequence(items) => items.as_slice(),
        _ => std::slice::from_ref(&named),
    };
    let mut base: Option<Node> = None;
    let mut complete = true;
    for item in items {
        match (base.take(), load(item, file, source, read, report)) {
            (Some(below), Some(next)) => base = Some(merge(below, next)),
            (below, next) => {
                complete &= next.is_some();
                base = below.or(next);
            }
        }
    }
    if let Some(base) = base {
        hint_at_misspelt_stages(root, &base, report);
        let above = std::mem::replace(root, Node::empty_mapping(root.span));
        *root = merge(base, above);
    }
    complete
}

/// One base, itself on top of what it extends.
fn load(item: &Node, by: &File<'_>, source: &mut Source, read: Reader<'_>, report: &mut Report) -> Option<Node> {
    let Some(name) = item.as_text().filter(|name| !name.is_empty()) else {
        let message = format!("expected a pipeline file, found {}", item.describe());
        report.add_with_help(item.span, message, "write `extends: base.yaml`, relative to this file");
        return None;
    };
    let whole = by.folder.join(name);
    let folder = whole.parent().map_or_else(PathBuf::new, Path::to_owned);
    let path = by.path.parent().map_or_else(|| PathBuf::from(name), |parent| parent.join(name));
    let file = File { path: &path, folder: &folder, by: Some(by) };
    if let Some(circle) = file.circle(&whole) {
        report.add_with_help(item.span, format!("these files extend each other: {circle}"), "take one `extends` away");
        return None;
    }
    let text = match read(&whole) {
        Ok(text) => text,
        Err(error) => {
            let shown = whole.display().to_string();
            let message = error.to_string();
            let message = message.strip_prefix(&format!("{shown}: ")).unwrap_or(&message).to_owned();
            let help = format!("it is looked for at {shown}");
            report.add_with_help(item.span, format!("cannot extend `{name}`: {message}"), help);
            return None;
        }
    };
    let Parsed { root, problems } = pipe_yaml::parse_with_recovery(&text);
    let root = root.map(|mut root| {
        point_at_keys(&mut root, &text);
        root
    });
    let start = source.push_file(path.clone(), folder.clone(), text);
    report.extend(problems.into_iter().map(|mut problem| {
        problem.span.iter_mut().for_each(|span| span.shift(start));
        problem
    }));
    let mut root = root?;
    root.shift(start);
    if root.entries().is_none() {
        report.add(root.span, format!("expected a pipeline, found {}", root.describe()), None);
        return None;
    }
    let complete = resolve(&mut root, &file, source, read, report);
    if let Value::Mapping(entries) = &mut root.value {
        entries.retain(|(key, _)| key.name != "name");
    }
    complete.then_some(root)
}

impl File<'_> {
    /// The way from `whole` back to itself, if this file is on it or the way is too long for any sense.
    fn circle(&self, whole: &Path) -> Option<String> {
        let mut way = vec![self.path.display().to_string()];
        let mut file = self.by;
        while let Some(above) = file {
            way.push(above.path.display().to_string());
            let name = above.path.file_name().unwrap_or_default();
            if same(&above.folder.join(name), whole) || way.len() > MAX_DEPTH {
                way.reverse();
                return Some(way.join(" -> "));
            }
            file = above.by;
        }
        None
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    real(one) == real(other)
}

/// `above` on top of `below`.
fn merge(below: Node, above: Node) -> Node {
    merge_at(below, above, &mut Vec::new())
}

fn merge_at(below: Node, above: Node, path: &mut Vec<String>) -> Node {
    let is_stage = matches!(&path[..], [stages, _] if stages == "stages");
    if is_stage && is_of_another_kind(&below, &above) {
        return above;
    }
    let span = above.span;
    let value = match (below.value, above.value) {
        (Value::Mapping(mut entries), Value::Mapping(new)) => {
            new.into_iter().for_each(|(key, value)| put(&mut entries, key, value, path));
            Value::Mapping(entries)
        }
        (_, value) => value,
    };
    Node { span, value }
}

fn put(entries: &mut Vec<(Key, Node)>, key: Key, value: Node, path: &mut Vec<String>) {
    let Some(at) = entries.iter().position(|(known, _)| known.name == key.name) else {
        return entries.push((key, value));
    };
    if value.is_null() {
        entries.remove(at);
        return;
    }
    let below = std::mem::replace(&mut entries[at].1, Node::empty_mapping(key.span));
    path.push(key.name.clone());
    let merged = merge_at(below, value, path);
    path.pop();
    entries[at] = (key, merged);
}

fn is_of_another_kind(below: &Node, above: &Node) -> bool {
    let kind = |stage: &Node| stage.get("kind").and_then(Node::as_text).map(str::to_owned);
    kind(above).is_some_and(|new| kind(below).is_some_and(|old| old != new))
}

/// A stage that the base does not have is a new one, and lacks its kind if it was meant for one that the base has.
fn hint_at_misspelt_stages(root: &Node, base: &Node, report: &mut Report) {
    let stages = |root: &Node| root.get("stages").and_then(Node::entries).unwrap_or_default().to_vec();
    let known = stages(base);
    let names = || known.iter().map(|(key, _)| key.name.as_str());
    for (key, stage) in stages(root) {
        if !stage.is_null() && stage.get("kind").is_none() && !names().any(|name| name == key.name) {
            let near = unknown_name_help(&key.name, names()).unwrap_or_default();
            // The suggestion; a list of all the others would hide it.
            let near =
                near.split_inclusive('?').next().filter(|near| near.ends_with('?')).unwrap_or("a new one needs a kind");
            report.hint(key.span, format!("what is extended has no stage `{}`: {near}", key.name));
        }
    }
}
