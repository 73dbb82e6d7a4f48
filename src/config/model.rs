//! What a pipeline file means: stages with their resolved configurations, each with its place in the text.
//!
//! Plain data. Nothing here reads files, and nothing here knows about keys, caches or processes.

use std::{borrow::Cow, collections::BTreeMap, fmt, path::PathBuf, sync::Arc, time::Duration};

use indexmap::IndexMap;
use pipe_stage::{Declaration, Digest, Form, Output, Reference, Resources, UserFile, name};
use pipe_yaml::{Node, Problem, Span};

use super::{ConfigError, Source};

/// A pipeline that is valid but for cycles, which the graph finds.
#[derive(Clone)]
pub struct Pipeline {
    /// `name:`, or the file's name without its extension.
    pub name: String,
    /// The absolute folder of the file. Relative paths in configurations start here.
    pub folder: PathBuf,
    /// The text that the spans point into.
    pub source: Arc<Source>,
    /// The stages, in the order of the file.
    pub stages: IndexMap<StageName, StageSpec>,
}

/// One stage of a pipeline.
#[derive(Clone)]
pub struct StageSpec {
    /// Its name.
    pub name: StageName,
    /// Its kind.
    pub declaration: &'static Declaration,
    /// The resolved configuration: parameters put in, defaults filled in, fields in the order of the declaration.
    pub config: serde_json::Value,
    /// The user's own files that the stage names, as written: resolve them against [`Pipeline::folder`].
    pub user_files: Vec<UserFile>,
    /// The names of what is outside of this machine that must be pinned.
    pub references: Vec<Reference>,
    /// Where those that are inputs (`inputs.NAME`) stand in the text.
    pub file_spans: BTreeMap<String, Span>,
    /// The outputs it makes.
    pub outputs: Vec<Output>,
    /// The environment variables that reach it; their values are in its key.
    pub environment: Vec<String>,
    /// The program of the user's that it runs, in words.
    pub command: Option<String>,
    /// The outputs that each input takes, by input name. One, or several for an input that takes a list.
    pub inputs: BTreeMap<String, Vec<InputRef>>,
    /// What it may use of the machine.
    pub resources: Resources,
    /// How often it is tried again after a failure.
    pub retries: u32,
    /// After this long it is stopped and counts as failed.
    pub timeout: Option<Duration>,
    /// Where copies of its outputs are put once they are up to date, by output name, as written: resolve them against
    /// [`Pipeline::folder`].
    pub checkout: BTreeMap<String, PathBuf>,
    /// Where its name stands.
    pub span: Span,
    /// The nodes of `with:`, parameters put in. Only for pointing at fields.
    pub with: Node,
}

/// One output of a stage, used as an input of another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InputRef {
    /// The stage that makes it.
    pub stage: StageName,
    /// The name of the output: `out` where a kind has only one.
    pub output: String,
    /// What the taker sees of it: a folder, or, where the taker's kind has open inputs and the output is one file,
    /// that file.
    pub form: Form,
    /// Where the reference stands.
    pub span: Span,
}

impl Pipeline {
    /// The stages that `name` stands for: one, or all that its matrix made.
    pub fn named(&self, name: &str) -> Vec<&StageName> {
        match self.stages.get_key_value(name) {
            Some((name, _)) => vec![name],
            None => self.stages.keys().filter(|stage| stage.matrix() == Some(name)).collect(),
        }
    }

    /// The error of one problem that was found after loading, shown at its place in the file.
    pub fn problem_at(&self, span: Span, message: impl Into<String>, help: Option<String>) -> ConfigError {
        self.invalid(vec![Problem { span: Some(span), message: message.into(), help }])
    }

    /// The error of several problems that were found after loading.
    pub fn invalid(&self, problems: Vec<Problem>) -> ConfigError {
        ConfigError::invalid(Arc::clone(&self.source), problems)
    }
}

impl StageSpec {
    /// Where the field at `path` stands (dots between the parts: `lora.r`); if it is a default, where its nearest
    /// written parent stands.
    pub fn field_span(&self, path: &str) -> Span {
        self.with.span_at(path)
    }

    /// All outputs that it takes.
    pub fn taken(&self) -> impl Iterator<Item = &InputRef> {
        self.inputs.values().flatten()
    }

    /// What the configuration says of one of its user files: the text of that field. An input has none.
    pub fn file_text(&self, file: &UserFile) -> Option<&str> {
        let mut parts = file.field.split('.');
        let top = self.config.get(parts.next()?)?;
        parts.try_fold(top, |value, part| value.get(part.parse::<usize>().ok()?))?.as_str()
    }

    /// The path of one of its user files of which each part counts, and not only the last: that of a list.
    pub fn kept_path(&self, file: &UserFile) -> Option<&str> {
        let listed = file.field.contains('.');
        self.file_text(file).filter(|_| listed).map(|text| text.trim_end_matches('/'))
    }

    /// Where the user's file of this [`UserFile::field`] is named.
    pub fn file_span(&self, field: &str) -> Span {
        self.file_spans.get(field).copied().unwrap_or_else(|| self.field_span(field))
    }
}

/// The name of a stage, as [`name`] allows it; for a stage of a matrix, `@` and its values behind that. Safe as the name
/// of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(transparent)]
pub struct StageName(String);

impl StageName {
    /// The longest name of a stage of a matrix, in bytes: the longest that a user gives, and a digest.
    pub const MAX_MEMBER_BYTES: usize = name::MAX_BYTES + 16;

    /// A name, if `text` is one.
    pub fn new(text: &str) -> Option<Self> {
        let (stage, member) = text.split_once('@').map_or((text, None), |(stage, member)| (stage, Some(member)));
        let in_member = |c: char| Self::is_label(c) || matches!(c, '=' | ',');
        let member_fits = member.is_none_or(|member| {
            !member.is_empty() && member.chars().all(in_member) && matches!(name::normal_form(member), Cow::Borrowed(_))
        });
        let fits = name::check(stage).is_ok() && member_fits && text.len() <= Self::MAX_MEMBER_BYTES;
        fits.then(|| Self(text.to_owned()))
    }

    /// The name of the stage that a matrix makes of `stage` for these values by axis.
    pub(super) fn of_member(stage: &str, labels: &[(String, String)]) -> String {
        let values: Vec<String> = labels.iter().map(|(axis, label)| format!("{axis}={label}")).collect();
        let name = format!("{stage}@{}", values.join(","));
        if name.len() <= Self::MAX_MEMBER_BYTES {
            name
        } else {
            format!("{stage}@{}", Digest::of(name.as_bytes()).short())
        }
    }

    /// Whether a value of a matrix may have this character in a name.
    pub(super) fn is_label(c: char) -> bool {
        name::is_character(c) || matches!(c, '.' | '+')
    }

    /// The stage whose matrix made this one.
    pub fn matrix(&self) -> Option<&str> {
        self.0.split_once('@').map(|(stage, _)| stage)
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StageName {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(&self.0)
    }
}

impl std::borrow::Borrow<str> for StageName {
    fn borrow(&self) -> &str {
        &self.0
    }
}
