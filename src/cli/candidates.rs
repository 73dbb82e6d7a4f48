//! What could stand in an argument, for the completions of a shell. Whatever goes wrong here gives no candidates, and
//! no word about it: the user is still typing.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use clap_complete::{CompletionCandidate, PathCompleter, engine::ArgValueCompleter};

use crate::{config, registry};

/// Pipeline files, and folders on the way to them.
pub(super) fn pipeline_files() -> ArgValueCompleter {
    ArgValueCompleter::new(PathCompleter::file().filter(is_pipeline_file))
}

/// The stages of the pipeline file that the command line names.
pub(super) fn stages() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| matching(typed, named_file().map(|file| stages_of(&file))))
}

/// `NAME=` for the parameters of the pipeline file that the command line names.
pub(super) fn settings() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| matching(typed, named_file().map(|file| params_of(&file))))
}

/// A candidate, and what a shell may show beside it.
type Candidate = (String, Option<String>);

fn matching(typed: &OsStr, candidates: Option<Vec<Candidate>>) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy();
    let fitting = candidates.into_iter().flatten().filter(|(value, _)| value.starts_with(&*typed));
    fitting.map(|(value, help)| CompletionCandidate::new(value).help(help.map(Into::into))).collect()
}

fn is_pipeline_file(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// The first pipeline file among the words typed so far, which stand behind a `--` here.
fn named_file() -> Option<PathBuf> {
    env::args_os()
        .skip_while(|word| word != "--")
        .skip(1)
        .map(PathBuf::from)
        .find(|path| is_pipeline_file(path) && path.is_file())
}

/// The stages of a pipeline with their kinds. A file with mistakes has at least the names that stand in it.
fn stages_of(file: &Path) -> Vec<Candidate> {
    match config::load(file, &[], registry::KINDS) {
        Ok(pipeline) => {
            let stages = pipeline.stages.values();
            stages.map(|stage| (stage.name.to_string(), Some(stage.declaration.kind.to_owned()))).collect()
        }
        Err(_) => keys_of(file, "stages").into_iter().map(|name| (name, None)).collect(),
    }
}

fn params_of(file: &Path) -> Vec<Candidate> {
    keys_of(file, "params").into_iter().map(|name| (format!("{name}="), None)).collect()
}

/// The keys of a mapping at the top of a file.
fn keys_of(file: &Path, mapping: &str) -> Vec<String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let root = pipe_yaml::parse_with_recovery(&text).root;
    let entries = root.as_ref().and_then(|root| root.get(mapping)?.entries()).unwrap_or_default();
    entries.iter().map(|(key, _)| key.name.clone()).collect()
}
