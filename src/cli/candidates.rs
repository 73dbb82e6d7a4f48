//! What could stand in an argument, for the completions of a shell. Whatever goes wrong here gives no candidates, and
//! no word about it: the user is still typing.

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use clap_complete::{CompletionCandidate, PathCompleter, engine::ArgValueCompleter};

use crate::{cache::Home, config, registry, report, runs::Runs};

/// As many runs are offered.
const RUNS: usize = 20;

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

/// The newest runs in the cache of this folder, and the words for them.
pub(super) fn runs() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| matching(typed, Some(recorded_runs())))
}

/// The stages of the newest run in the cache of this folder.
pub(super) fn recorded_stages() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| matching(typed, Some(stages_of_last_run())))
}

/// The same stages and, where one made several outputs, those: `STAGE.OUTPUT`.
pub(super) fn recorded_outputs() -> ArgValueCompleter {
    ArgValueCompleter::new(|typed: &OsStr| matching(typed, Some(outputs_of_last_run())))
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

fn home() -> Option<Runs> {
    Some(Runs::new(&Home::locate(&env::current_dir().ok()?).ok()?))
}

fn recorded_runs() -> Vec<Candidate> {
    let mut candidates = Vec::new();
    for (index, run) in home().iter().flat_map(Runs::summaries).take(RUNS).enumerate() {
        let help = Some(format!("{}, {}", run.pipeline, report::moment(run.started)));
        if let Some(word) = ["last", "last~1"].get(index) {
            candidates.push(((*word).to_owned(), help.clone()));
        }
        candidates.push((run.id.to_string(), help));
    }
    candidates
}

fn stages_of_last_run() -> Vec<Candidate> {
    let stages = home().and_then(|runs| runs.latest(|_| true)).map(|run| run.stages).unwrap_or_default();
    stages.into_iter().map(|(name, stage)| (name, Some(stage.kind))).collect()
}

fn outputs_of_last_run() -> Vec<Candidate> {
    let mut candidates = Vec::new();
    let runs = home();
    if let Some(runs) = &runs
        && let Some(mut run) = runs.latest(|_| true)
    {
        runs.complete(&mut run);
        for (name, stage) in run.stages {
            if stage.outputs.keys().ne(["out"]) {
                let outputs = stage.outputs.keys().map(|output| (format!("{name}.{output}"), Some(stage.kind.clone())));
                candidates.extend(outputs);
            } else {
                candidates.push((name, Some(stage.kind)));
            }
        }
    }
    candidates
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
