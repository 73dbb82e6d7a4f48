//! One entry of `stages:` to a [`StageSpec`].

mod checkout;
mod inputs;
mod limits;

use std::{
    borrow::Cow,
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pipe_stage::{Declaration, Output, ParsedConfig, Problems, Resources};
use pipe_yaml::{Key, Node, Problem, Span, Value, unknown_name_help};

use self::inputs::Taker;
pub(super) use self::{
    checkout::Places,
    inputs::{Groups, Known},
    limits::{DURATION_PATTERN, MAX_RETRIES, ResourceFields},
};
use super::{Source, StageName, StageSpec, params::MATRIX, report::Report};

/// The fields of a stage.
pub(super) const FIELDS: [&str; 8] = ["kind", "with", "inputs", "resources", "retries", "timeout", "outputs", MATRIX];

/// A stage as far as it can be read without the others.
pub(super) struct Draft<'a> {
    key: &'a Key,
    declaration: Option<&'static Declaration>,
    config: Option<ParsedConfig>,
    with: Cow<'a, Node>,
    /// The nodes of the other fields.
    inputs: Option<&'a Node>,
    resources: Option<&'a Node>,
    retries: Option<&'a Node>,
    timeout: Option<&'a Node>,
    checkout: Option<&'a Node>,
    /// Whether there was nothing to report.
    sound: bool,
}

impl<'a> Draft<'a> {
    /// Reads the kind and `with:` of a stage.
    pub(super) fn read(
        (key, node): (&'a Key, &'a Node),
        registry: &'static [Declaration],
        report: &mut Report,
    ) -> Self {
        let before = report.count();
        let fields = report.fields(node, "a stage", FIELDS);
        let [kind, with, inputs, resources, retries, timeout, checkout, _] = fields.unwrap_or_default();
        let declaration = match fields {
            Some(_) => read_kind(kind, key.span, registry, report),
            None => None,
        };
        let with = with.map_or_else(|| Cow::Owned(Node::empty_mapping(key.span)), Cow::Borrowed);
        let config = declaration
            .and_then(|declaration| declaration.parse(&with).map_err(|problems| report.extend(problems)).ok());
        let sound = report.count() == before;
        Self { key, declaration, config, with, inputs, resources, retries, timeout, checkout, sound }
    }

    /// The outputs of the stage, if they can be made out.
    fn outputs(&self, report: &Report) -> Option<Vec<Output>> {
        let declaration = self.declaration?;
        if !declaration.open_outputs {
            return Some(declaration.outputs.iter().map(|name| Output::folder(name)).collect());
        }
        // Wrong ones come to nothing, and are reported by the kind.
        let outputs = &self.config.as_ref()?.outputs;
        (!outputs.is_empty() && !has_unknown(&self.with, report)).then(|| outputs.clone())
    }

    /// Reads what is left of a stage of the pipeline `source` in `folder`, now that the others are known. Gives nothing if there
    /// are problems, which are all reported.
    pub(super) fn finish(
        self,
        known: &Known<'_>,
        (source, folder): (&Source, &Path),
        places: &mut Places<'a>,
        report: &mut Report,
    ) -> Option<StageSpec> {
        let before = report.count();
        let key = self.key;
        let name = StageName::new(&key.name);
        if name.is_none() {
            let help = format!("use letters, digits, `_` and `-`, at most {}, not first a `-`", StageName::MAX_LENGTH);
            report.add_with_help(key.span, format!("`{}` is no name for a stage", key.name), help);
        }
        let resources = self.resources.map_or_else(Resources::default, |node| limits::read_resources(node, report));
        let retries = self.retries.map_or(0, |node| limits::read_retries(node, report));
        let timeout = self.timeout.and_then(|node| limits::read_timeout(node, report));
        let inputs = Taker { key, declaration: self.declaration, known }.read(self.inputs, report);
        if let Some(config) = &self.config {
            check_config(config, &self.with, &inputs.names, report);
        }
        let outputs = known.stages.get(key.name.as_str()).and_then(Option::as_deref);
        let mut checkout = self.checkout.map(|node| checkout::read(key, node, outputs, report)).unwrap_or_default();
        for (path, span) in checkout.values_mut() {
            from_base(path, *span, source, report);
        }
        if !self.sound || report.count() != before {
            return None;
        }
        let config = self.config?;
        let mut spec = StageSpec {
            name: name?,
            declaration: self.declaration?,
            config: config.value,
            user_files: config.user_files,
            file_spans: inputs.file_spans,
            outputs: config.outputs,
            environment: config.environment,
            inputs: inputs.taken,
            resources,
            retries,
            timeout,
            checkout: checkout.iter().map(|(output, (path, _))| (output.clone(), path.clone())).collect(),
            span: key.span,
            with: self.with.into_owned(),
        };
        spec.user_files.extend(inputs.files);
        let spans: Vec<Span> = spec.user_files.iter().map(|file| spec.file_span(&file.field)).collect();
        for (file, span) in spec.user_files.iter_mut().zip(spans) {
            from_base(&mut file.path, span, source, report);
        }
        places.add(&key.name, folder, &spec, &checkout);
        Some(spec)
    }
}

impl<'a> Known<'a> {
    pub(super) fn of(drafts: &[Draft<'a>], groups: Groups<'a>, report: &Report) -> Self {
        let stages = drafts.iter().map(|draft| (draft.key.name.as_str(), draft.outputs(report))).collect();
        Self { stages, groups }
    }
}

/// A relative path that stands in a file which is extended starts from the folder of that file.
fn from_base(path: &mut PathBuf, span: Span, source: &Source, report: &Report) {
    if let Some(folder) = source.base_folder(report.source_of(span)) {
        *path = folder.join(&path);
    }
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

/// Checks what the types of `with:` could not.
fn check_config(config: &ParsedConfig, with: &Node, inputs: &BTreeSet<String>, report: &mut Report) {
    // A `${...}` that came to nothing is still its own text here: no range says anything about it.
    if has_unknown(with, report) {
        return;
    }
    let mut problems = Problems::default();
    config.validate(inputs, &mut problems);
    report.extend(problems.into_inner().into_iter().map(|(path, message, help)| Problem {
        span: Some(with.span_at(&path)),
        message: format!("{path}: {message}"),
        help,
    }));
}

fn has_unknown(node: &Node, report: &Report) -> bool {
    report.is_unknown(node.span)
        || match &node.value {
            Value::Scalar { .. } => false,
            Value::Sequence(items) => items.iter().any(|item| has_unknown(item, report)),
            Value::Mapping(entries) => entries.iter().any(|(_, value)| has_unknown(value, report)),
        }
}
