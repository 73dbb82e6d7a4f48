//! Why a stage runs.

use std::fmt;

use pipe_stage::{Digest, manifest::escape};
use serde::Serialize;
use serde_json::Value;

use super::{FolderChange, Lookup, difference};
use crate::{
    cache::{FileIdentity, Identity},
    config::{StageName, StageSpec},
    pins::FILE_NAME,
    runs::{Outcome, Unsuccessful},
};

/// Values longer than this are cut in sentences, in characters. JSON has them whole.
pub(super) const LONGEST_VALUE: usize = 60;

/// The same for errors.
const LONGEST_ERROR: usize = 200;

/// One reason for running a stage. Shown as a lower-case fragment.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// The cache knows no earlier run of the stage.
    NeverRun,
    /// The last attempt at it made nothing.
    LastRun(Unsuccessful),
    /// It was asked for, whatever the cache has.
    Forced,
    /// The stage is of another kind.
    Kind {
        /// Before.
        from: String,
        /// Now.
        to: String,
    },
    /// The kind works in another way than before.
    Version {
        /// The kind.
        kind: String,
        /// Before.
        from: u32,
        /// Now.
        to: u32,
    },
    /// A value of the configuration is another one.
    Config {
        /// Its path, dots between the parts.
        field: String,
        /// Before; `None` if there was no such field.
        from: Option<Value>,
        /// Now; `None` if there is no such field.
        to: Option<Value>,
    },
    /// A file or folder of the user's is another one, or holds something else.
    File {
        /// The field that names it.
        field: String,
        /// Before; `None` if it named none.
        from: Option<FileIdentity>,
        /// Now; `None` if it names none.
        to: Option<FileIdentity>,
        /// Which files of a folder differ; `None` if it is no folder, or its earlier state is not known.
        files: Option<FolderChange>,
    },
    /// The name of something elsewhere stands for another version of it.
    Pin {
        /// The field that holds the name.
        field: String,
        /// What it stood for; `None` if it named nothing.
        from: Option<String>,
        /// What it stands for; `None` if it names nothing.
        to: Option<String>,
    },
    /// It is not known yet what the name of something elsewhere stands for.
    Unpinned {
        /// The name.
        name: String,
    },
    /// A declared environment variable has another value. Neither value is shown: it may be a secret.
    Environment {
        /// Its name.
        variable: String,
        /// Whether it was set.
        was_set: bool,
        /// Whether it is set.
        is_set: bool,
    },
    /// An input is another artifact.
    Input {
        /// The input.
        input: String,
        /// The stages that now make what is new in it.
        stages: Vec<StageName>,
        /// The artifacts before.
        from: Vec<Digest>,
        /// The artifacts now.
        to: Vec<Digest>,
    },
    /// It ran, and its output is gone.
    OutputMissing {
        /// The output.
        output: String,
        /// The file that is gone, if it is one.
        file: Option<String>,
    },
    /// It ran, and its output is not what it was.
    OutputDamaged {
        /// The output.
        output: String,
        /// The file that is damaged, if it is one.
        file: Option<String>,
        /// How that shows.
        why: String,
    },
    /// A stage that it takes from has to run first.
    Upstream {
        /// That stage.
        stage: StageName,
    },
}

impl Reason {
    /// The stages that gave this reason: those whose output is new, or still to be made.
    pub fn stages(&self) -> &[StageName] {
        match self {
            Self::Input { stages, .. } => stages,
            Self::Upstream { stage } => std::slice::from_ref(stage),
            _ => &[],
        }
    }
}

/// Why a stage runs for which there was no record, or none whose artifacts are left: the last attempt at it made nothing,
/// or there was none.
pub(super) fn without_record(last_attempt: Option<Unsuccessful>) -> Reason {
    last_attempt.map_or(Reason::NeverRun, Reason::LastRun)
}

/// What differs between the last run of a stage and the next one. At least one reason.
pub(super) fn differences(spec: &StageSpec, last: &Identity, now: &Identity, lookup: &impl Lookup) -> Vec<Reason> {
    if last.kind != now.kind {
        return vec![Reason::Kind { from: last.kind.clone(), to: now.kind.clone() }];
    }
    let mut reasons = Vec::new();
    if last.version != now.version {
        reasons.push(Reason::Version { kind: now.kind.clone(), from: last.version, to: now.version });
    }
    compare_values("", Some(&last.config), Some(&now.config), &mut reasons);
    for field in union(last.files.keys(), now.files.keys()) {
        let (from, to) = (last.files.get(field).cloned(), now.files.get(field).cloned());
        if from != to {
            let files = folder_change(from.as_ref(), to.as_ref(), lookup);
            reasons.push(Reason::File { field: field.clone(), from, to, files });
        }
    }
    for field in union(last.pins.keys(), now.pins.keys()) {
        let (from, to) = (last.pins.get(field).cloned(), now.pins.get(field).cloned());
        if from != to {
            reasons.push(Reason::Pin { field: field.clone(), from, to });
        }
    }
    for variable in union(last.environment.keys(), now.environment.keys()) {
        let value = |identity: &Identity| identity.environment.get(variable).copied().flatten();
        let (from, to) = (value(last), value(now));
        if from != to {
            reasons.push(Reason::Environment {
                variable: variable.clone(),
                was_set: from.is_some(),
                is_set: to.is_some(),
            });
        }
    }
    for input in union(last.inputs.keys(), now.inputs.keys()) {
        let artifacts = |identity: &Identity| identity.inputs.get(input).cloned().unwrap_or_default();
        let (from, to) = (artifacts(last), artifacts(now));
        if from != to {
            let sources = spec.inputs.get(input).into_iter().flatten();
            let new = sources.zip(&to).filter(|(_, artifact)| !from.contains(artifact));
            let stages = new.map(|(source, _)| source.stage.clone()).collect();
            reasons.push(Reason::Input { input: input.clone(), stages, from, to });
        }
    }
    if reasons.is_empty() {
        // The record of the last run disappeared between two questions.
        reasons.push(Reason::NeverRun);
    }
    reasons
}

fn folder_change(from: Option<&FileIdentity>, to: Option<&FileIdentity>, lookup: &impl Lookup) -> Option<FolderChange> {
    let folders = from.zip(to).filter(|(from, to)| from.folder && to.folder && from.digest != to.digest);
    let (from, to) = folders?;
    Some(FolderChange::between(&lookup.folder(&from.digest)?, &lookup.folder(&to.digest)?))
}

fn compare_values(field: &str, from: Option<&Value>, to: Option<&Value>, reasons: &mut Vec<Reason>) {
    match (from, to) {
        (Some(Value::Object(old)), Some(Value::Object(new))) => {
            for name in union(new.keys(), old.keys()) {
                let path = if field.is_empty() { name.clone() } else { format!("{field}.{name}") };
                compare_values(&path, old.get(name), new.get(name), reasons);
            }
        }
        (from, to) if from == to => {}
        (from, to) => {
            reasons.push(Reason::Config { field: field.to_owned(), from: from.cloned(), to: to.cloned() });
        }
    }
}

/// The names of both, each once, those of the first before the others.
fn union<'a>(first: impl Iterator<Item = &'a String>, second: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let names: indexmap::IndexSet<&String> = first.chain(second).collect();
    names.into_iter().collect()
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NeverRun => write!(f, "never run"),
            Self::LastRun(Unsuccessful { outcome, error, .. }) => match outcome {
                Outcome::Failed => write!(f, "the last run failed: {}", Cut(&error.join(": "), LONGEST_ERROR)),
                Outcome::Cancelled => write!(f, "the last run was stopped"),
                _ => write!(f, "the last run was killed"),
            },
            Self::Forced => write!(f, "forced"),
            Self::Kind { from, to } => write!(f, "kind changed from `{from}` to `{to}`"),
            Self::Version { kind, from, to } => write!(f, "kind `{kind}` changed from version {from} to {to}"),
            Self::Config { field, from: Some(from), to: Some(to) } => {
                write!(f, "`{field}` {}", difference::words(from, to))
            }
            Self::Config { field, from: None, to } => {
                write!(f, "`{field}` is new: {}", Brief(to.as_ref().unwrap_or(&Value::Null)))
            }
            Self::Config { field, to: None, .. } => write!(f, "`{field}` is gone"),
            Self::File { field, from: Some(from), to: Some(to), .. } if from.name != to.name => {
                write!(f, "`{field}` names `{}` instead of `{}`", to.name, from.name)
            }
            Self::File { field, to: Some(to), files: Some(files), .. } => {
                write!(f, "the folder `{}` of `{field}` changed: {files}", to.name)
            }
            Self::File { field, from: Some(_), to: Some(to), .. } => {
                write!(f, "the {} `{}` of `{field}` changed", if to.folder { "folder" } else { "file" }, to.name)
            }
            Self::File { field, to: Some(to), .. } => write!(f, "`{field}` now names `{}`", to.name),
            Self::File { field, .. } => write!(f, "`{field}` no longer names a file"),
            Self::Pin { field, from: Some(from), to: Some(to) } => {
                write!(f, "`{field}` moved from {} to {}", short_pin(from), short_pin(to))
            }
            Self::Pin { field, to: Some(to), .. } => write!(f, "`{field}` now stands for {}", short_pin(to)),
            Self::Pin { field, .. } => write!(f, "`{field}` no longer names anything elsewhere"),
            Self::Unpinned { name } => write!(f, "{} is not in {FILE_NAME} yet", Cut(name, LONGEST_VALUE)),
            Self::Environment { variable, was_set: true, is_set: true } => {
                write!(f, "the environment variable `{variable}` changed")
            }
            Self::Environment { variable, is_set: true, .. } => {
                write!(f, "the environment variable `{variable}` is now set")
            }
            Self::Environment { variable, .. } => write!(f, "the environment variable `{variable}` is no longer set"),
            Self::Input { input, from, .. } if from.is_empty() => write!(f, "input `{input}` is new"),
            Self::Input { input, to, .. } if to.is_empty() => write!(f, "input `{input}` is gone"),
            Self::Input { input, stages, from, to } => input_changed(f, input, stages, from, to),
            Self::OutputMissing { output, file } => write!(f, "output `{output}` is missing{}", InBrackets(file)),
            Self::OutputDamaged { output, file, why } => {
                write!(f, "output `{output}` is damaged{}: {why}", InBrackets(file))
            }
            Self::Upstream { stage } => write!(f, "`{stage}` runs first"),
        }
    }
}

fn input_changed(
    f: &mut fmt::Formatter<'_>,
    input: &str,
    stages: &[StageName],
    from: &[Digest],
    to: &[Digest],
) -> fmt::Result {
    write!(f, "input `{input}` changed")?;
    match (stages, from, to) {
        ([stage], [from], [to]) => write!(f, ": `{stage}` made {}, it was {}", to.short(), from.short()),
        ([], _, _) if from.len() == to.len() => write!(f, ": its artifacts are in another order"),
        ([], _, _) => write!(f, ": {} artifacts, they were {}", to.len(), from.len()),
        (stages, _, _) => {
            let names: Vec<String> = stages.iter().map(|stage| format!("`{stage}`")).collect();
            write!(f, ": {} made something new", names.join(", "))
        }
    }
}

/// Of a commit or digest, as much as a person needs; any other pin as it is.
pub(crate) fn short_pin(pin: &str) -> &str {
    const SHORT: usize = 12;
    let is_hex = pin.len() > SHORT && pin.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex { &pin[..SHORT] } else { pin }
}

/// A value as a person would write it, cut if it is long.
pub(crate) struct Brief<'a>(pub(crate) &'a Value);

impl fmt::Display for Brief<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self.0 {
            Value::Number(number) if number.is_f64() => {
                let value = number.as_f64().unwrap_or(f64::NAN);
                let (plain, scientific) = (value.to_string(), format!("{value:e}"));
                if scientific.len() < plain.len() { scientific } else { plain }
            }
            value => value.to_string(),
        };
        Cut(&text, LONGEST_VALUE).fmt(f)
    }
}

/// A text, cut if it has more characters than that. Line breaks become blanks.
struct Cut<'a>(&'a str, usize);

impl fmt::Display for Cut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (text, more) = match self.0.char_indices().nth(self.1) {
            Some((end, _)) => (&self.0[..end], "..."),
            None => (self.0, ""),
        };
        text.split(['\n', '\r']).enumerate().try_for_each(|(index, line)| {
            f.write_str(if index == 0 { "" } else { " " })?;
            f.write_str(line)
        })?;
        f.write_str(more)
    }
}

struct InBrackets<'a>(&'a Option<String>);

impl fmt::Display for InBrackets<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.as_ref().map_or(Ok(()), |file| write!(f, " (`{}`)", escape(file)))
    }
}
