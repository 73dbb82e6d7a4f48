//! Whether an artifact that is broken can be made again, and by what.

use std::collections::{BTreeSet, HashMap};

use pipe_stage::{Digest, manifest::escape};

use crate::{
    cache::{Home, Link, UserFiles},
    config::{self, Pipeline},
    registry,
    runs::{RunId, RunRecord, Runs},
    scheduler::Programs,
};

/// Finds out what can be made again.
pub(super) struct Rebuilder<'a> {
    links: &'a [Link],
    /// Indices of the links that made an artifact.
    makers: HashMap<Digest, Vec<usize>>,
    broken: BTreeSet<Digest>,
    runs: Runs,
    files: UserFiles,
    records: HashMap<String, Option<RunRecord>>,
    pipelines: HashMap<Digest, Option<Pipeline>>,
    /// By artifact: the link that makes it again, or why none does. Absent while it is being found out.
    answers: HashMap<Digest, Option<Result<usize, String>>>,
}

impl<'a> Rebuilder<'a> {
    pub(super) fn new(home: &Home, links: &'a [Link], broken: BTreeSet<Digest>) -> Self {
        let mut makers: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (index, link) in links.iter().enumerate() {
            link.outputs.values().for_each(|artifact| makers.entry(*artifact).or_default().push(index));
        }
        Self {
            links,
            makers,
            broken,
            runs: Runs::new(home),
            files: UserFiles::new(home),
            records: HashMap::new(),
            pipelines: HashMap::new(),
            answers: HashMap::new(),
        }
    }

    /// The stage that makes an artifact again when it runs, or why there is none.
    pub(super) fn way(&mut self, artifact: &Digest) -> Result<&'a Link, String> {
        let links = self.links;
        self.find(artifact).map(|index| &links[index])
    }

    /// The links that made an artifact.
    pub(super) fn makers(&self, artifact: &Digest) -> impl Iterator<Item = &'a Link> + use<'a> {
        let links = self.links;
        self.makers.get(artifact).cloned().unwrap_or_default().into_iter().map(move |index| &links[index])
    }

    /// The record of the run that made a link's artifacts.
    pub(super) fn run(&mut self, link: &Link) -> Option<&RunRecord> {
        let id = link.run.as_ref()?;
        let runs = &self.runs;
        let read = || id.parse::<RunId>().ok().and_then(|id| runs.get(&id));
        self.records.entry(id.clone()).or_insert_with(read).as_ref()
    }

    fn find(&mut self, artifact: &Digest) -> Result<usize, String> {
        if let Some(answer) = self.answers.get(artifact) {
            // An artifact that is made of itself, as by a stage that copies, needs another way.
            return answer.clone().unwrap_or_else(|| Err("it is made of itself".to_owned()));
        }
        self.answers.insert(*artifact, None);
        let mut answer = Err("no record tells how it was made".to_owned());
        for index in self.makers.get(artifact).cloned().unwrap_or_default() {
            answer = self.can_run(&self.links[index]).map(|()| index);
            if answer.is_ok() {
                break;
            }
        }
        self.answers.insert(*artifact, Some(answer.clone()));
        answer
    }

    /// Whether a stage would do the same work again.
    fn can_run(&mut self, link: &Link) -> Result<(), String> {
        let (kind, version) = &link.kind;
        let Some(declaration) = registry::KINDS.iter().find(|known| known.kind == kind) else {
            return Err(format!("this pipe has no kind `{kind}`"));
        };
        if declaration.version != *version {
            return Err(format!("it was made by version {version} of `{kind}`, which is {} now", declaration.version));
        }
        let programs = Programs::locate().map_err(|error| error.to_string())?;
        programs.path(declaration.program).map_err(|error| error.to_string())?;
        self.has_its_files(link)?;
        for (name, digest) in &link.environment {
            let now = std::env::var_os(name).map(|value| Digest::of(value.as_encoded_bytes()));
            if now != *digest {
                return Err(format!("the environment variable {name} has another value now"));
            }
        }
        for input in link.inputs.iter().filter(|input| self.broken.contains(*input)).copied().collect::<Vec<_>>() {
            self.find(&input).map_err(|why| format!("its input {} cannot be made again: {why}", input.short()))?;
        }
        Ok(())
    }

    fn has_its_files(&mut self, link: &Link) -> Result<(), String> {
        if link.files.is_empty() {
            return Ok(());
        }
        let unknown = "it took files, and the run that knows which is no longer recorded";
        let stage = link.stage.clone();
        let resolved = self.run(link).map(|run| (run.resolved, run.file.clone())).ok_or(unknown)?;
        let runs = &self.runs;
        let read = || {
            let (digest, file) = &resolved;
            let source = config::Source::new(file, runs.resolved(digest)?);
            let folder = file.parent().unwrap_or(file).to_owned();
            config::parse(source, folder, &[], registry::KINDS).ok()
        };
        let pipeline = self.pipelines.entry(resolved.0).or_insert_with(read).as_ref().ok_or(unknown)?;
        let spec = pipeline.stages.get(stage.as_str()).ok_or(unknown)?;
        for (field, identity) in &link.files {
            let file = spec.user_files.iter().find(|file| file.field == *field).ok_or(unknown)?;
            let path = pipeline.folder.join(&file.path);
            let shown = escape(&path.to_string_lossy()).into_owned();
            match self.files.identify(&path) {
                Ok(now) if now.digest == identity.digest => {}
                Ok(_) => return Err(format!("`{shown}` holds something else now")),
                Err(_) if !path.exists() => return Err(format!("`{shown}` is gone")),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(())
    }
}
