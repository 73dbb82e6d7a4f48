//! One entry of `stages:` to a [`StageSpec`].

mod checkout;
mod inputs;
mod limits;
mod ranges;

use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

use pipe_stage::{
    Declaration, Output, ParsedConfig, Resources,
    name::{self, NameError},
};
use pipe_yaml::{Key, Node, Span, unknown_name_help};

pub(crate) use self::limits::MAX_CPUS;
pub(super) use self::{
    checkout::Places,
    inputs::{Groups, Known},
    limits::{DURATION_PATTERN, MAX_RETRIES, ResourceFields},
};
use self::{inputs::Taker, ranges::has_unknown};
use super::{InputRef, Source, StageName, StageSpec, params::MATRIX, report::Report};

/// The fields of a stage.
pub(super) const FIELDS: [&str; 8] = ["kind", "with", "inputs", "resources", "retries", "timeout", "outputs", MATRIX];

/// What is known of a stage with problems, which are all reported.
#[derive(Default)]
pub(super) struct Unsound {
    pub(super) name: Option<StageName>,
    /// What it takes, as far as it can be made out.
    pub(super) taken: Vec<InputRef>,
}

/// A stage as far as it can be read without the others.
pub(super) struct Draft<'a> {
    key: &'a Key,
    declaration: Option<&'static Declaration>,
    config: Option<ParsedConfig>,
    /// Where `with:` could not be read.
    failed: Vec<Span>,
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
        let (config, failed) = match declaration.map(|declaration| declaration.parse(&with)) {
            Some(Ok(config)) => (Some(config), Vec::new()),
            Some(Err(problems)) => {
                let places = problems.iter().filter_map(|problem| problem.span).collect();
                report.extend(problems);
                (None, places)
            }
            None => (None, Vec::new()),
        };
        let sound = report.count() == before;
        Self { key, declaration, config, failed, with, inputs, resources, retries, timeout, checkout, sound }
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

    /// Reads what is left of a stage of the pipeline `source` in `folder`, now that the others are known. Fails if there
    /// are problems, which are all reported.
    pub(super) fn finish(
        self,
        known: &Known<'_>,
        (source, folder): (&Source, &Path),
        places: &mut Places<'a>,
        report: &mut Report,
    ) -> Result<StageSpec, Unsound> {
        let before = report.count();
        let key = self.key;
        let name = StageName::new(&key.name);
        if name.is_none() {
            let given = key.name.split_once('@').map_or(key.name.as_str(), |(stage, _)| stage);
            let wrong = name::check(given).err().unwrap_or(NameError::Characters);
            report.add_with_help(key.span, format!("`{}` is no name for a stage", key.name), wrong.to_string());
        }
        let resources = self.resources.map_or_else(Resources::default, |node| limits::read_resources(node, report));
        let retries = self.retries.map_or(0, |node| limits::read_retries(node, report));
        let timeout = self.timeout.and_then(|node| limits::read_timeout(node, report));
        let inputs = Taker { key, declaration: self.declaration, known }.read(self.inputs, report);
        if let Some(declaration) = self.declaration {
            ranges::check(declaration, (&self.with, self.config.as_ref()), &self.failed, &inputs.names, report);
        }
        let outputs = known.stages.get(key.name.as_str()).and_then(Option::as_deref);
        let mut checkout = self.checkout.map(|node| checkout::read(key, node, outputs, report)).unwrap_or_default();
        for (path, span) in checkout.values_mut() {
            from_base(path, *span, source, report);
        }
        if !self.sound || report.count() != before {
            return Err(Unsound { name, taken: inputs.taken.into_values().flatten().collect() });
        }
        let (Some(name), Some(declaration), Some(config)) = (name, self.declaration, self.config) else {
            return Err(Unsound::default());
        };
        let mut spec = StageSpec {
            name,
            declaration,
            config: config.value,
            user_files: config.user_files,
            references: config.references,
            file_spans: inputs.file_spans,
            outputs: config.outputs,
            environment: config.environment,
            command: config.command,
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
        Ok(spec)
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
