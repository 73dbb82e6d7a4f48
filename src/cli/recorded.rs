//! The arguments that choose recorded runs, shared by the commands that look back.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use clap::Args;
use pipe_stage::Digest;

use super::{CliError, candidates};
use crate::{
    cache::Home,
    config::{self, Pipeline},
    registry,
    runs::{AttemptRun, ChooseError, RunId, RunRecord, RunStatus, RunSummary, Runs, StageRun},
};

/// Which pipeline's runs to look at.
#[derive(Args)]
pub(super) struct Scope {
    /// Look at the runs of this pipeline file; without it, at those of every pipeline in the cache of this folder
    #[arg(long, value_name = "FILE", add = candidates::pipeline_files())]
    pipeline: Option<PathBuf>,
}

/// A home, and which of its runs count.
pub(super) struct Scoped {
    pub(super) home: Home,
    pub(super) runs: Runs,
    pipeline: Option<OfPipeline>,
}

enum OfPipeline {
    Name(String),
    /// The file has mistakes now, but its runs are there.
    File(PathBuf),
}

impl Scope {
    pub(super) fn open(&self) -> Result<Scoped, CliError> {
        let (folder, pipeline) = match &self.pipeline {
            Some(file) => {
                let absolute = std::path::absolute(file).unwrap_or_else(|_| file.clone());
                let folder = absolute.parent().map_or_else(PathBuf::new, Path::to_owned);
                let chosen = match config::load(file, &[], registry::KINDS) {
                    Ok(pipeline) => OfPipeline::Name(pipeline.name),
                    Err(_) if absolute.is_file() => OfPipeline::File(absolute),
                    Err(error) => return Err(error.into()),
                };
                (folder, Some(chosen))
            }
            None => (std::env::current_dir().unwrap_or_default(), None),
        };
        let home = Home::locate(&folder)?;
        Ok(Scoped { runs: Runs::new(&home), home, pipeline })
    }
}

impl Scoped {
    /// Whether a run of the pipeline of this name, from this file, counts.
    pub(super) fn counts(&self, name: &str, file: &Path) -> bool {
        match &self.pipeline {
            None => true,
            Some(OfPipeline::Name(wanted)) => wanted == name,
            Some(OfPipeline::File(wanted)) => wanted == file,
        }
    }

    /// All runs that count, the newest first.
    pub(super) fn summaries(&self) -> impl Iterator<Item = RunSummary> {
        self.runs.summaries().filter(|run| self.counts(&run.pipeline, &run.file))
    }

    /// The run that `word` names.
    pub(super) fn choose(&self, word: &str) -> Result<RunRecord, CliError> {
        let id = self.runs.choose(word, |run| self.counts(&run.pipeline, &run.file)).map_err(|error| {
            let help = match &error {
                ChooseError::NoRuns { .. } => NO_RUNS_HELP,
                ChooseError::Ambiguous { .. } => "write more of its id",
                ChooseError::TooFarBack { .. } | ChooseError::Unknown { .. } => {
                    "name one by `last`, `last~1`, its id or the beginning of it: `pipe runs` lists them"
                }
            };
            CliError::usage(error.to_string(), help.to_owned())
        })?;
        self.runs.get(&id).ok_or_else(|| {
            let path = self.runs.path(&id);
            CliError::usage(format!("the record of the run {id} cannot be read"), format!("see {}", path.display()))
        })
    }
}

const NO_RUNS_HELP: &str =
    "run the pipeline first; the cache of another folder is chosen by --pipeline FILE or $PIPE_HOME";

/// An attempt at a stage.
pub(super) struct Made {
    pub(super) run: RunId,
    /// Of the run.
    pub(super) status: RunStatus,
    /// In the run, from 1.
    pub(super) number: usize,
    pub(super) attempt: AttemptRun,
}

/// An output of a stage in a recorded run.
pub(super) struct Chosen<'a> {
    pub(super) home: Home,
    pub(super) run: RunRecord,
    pub(super) stage: &'a str,
    pub(super) output: String,
    pub(super) digest: Digest,
}

/// The pipeline as a run meant it, if the cache still has it.
pub(super) fn pipeline_of(home: &Home, run: &RunRecord) -> Option<Pipeline> {
    let folder = run.file.parent().unwrap_or(&run.file).to_owned();
    let text = Runs::new(home).resolved(&run.resolved)?;
    config::parse(config::Source::new(&run.file, text), folder, &[], registry::KINDS).ok()
}

fn none_such(stage: &str, output: Option<&str>, outputs: &BTreeMap<String, Digest>) -> CliError {
    let message = match output {
        Some(output) => format!("the stage `{stage}` has no output `{output}`"),
        None => format!("the stage `{stage}` has {} outputs", outputs.len()),
    };
    let known: Vec<String> = outputs.keys().map(|output| format!("{stage}.{output}")).collect();
    let help = match known.len() {
        1 => format!("it has one: name `{stage}`"),
        _ => format!("name one: {}", known.join(", ")),
    };
    CliError::usage(message, help)
}

/// Which run to look at.
#[derive(Args)]
pub(super) struct Recorded {
    #[command(flatten)]
    scope: Scope,
    /// Look at this run (`last`, `last~1`, an id or the beginning of one); without it, at the last one that has what is
    /// asked for
    #[arg(long, value_name = "RUN", add = candidates::runs())]
    run: Option<String>,
}

impl Recorded {
    /// Whether a pipeline or a run is named.
    pub(super) fn is_given(&self) -> bool {
        self.run.is_some() || self.scope.pipeline.is_some()
    }

    /// The attempts at a stage, the newest first.
    pub(super) fn attempts(&self, stage: &str, limit: usize) -> Result<Vec<Made>, CliError> {
        let scoped = self.scope.open()?;
        let runs = scoped.runs.ids().into_iter().filter_map(|id| scoped.runs.get(&id));
        let of_stage = |run: RunRecord| {
            let RunRecord { id, status, mut stages, .. } = run;
            let made = stages.swap_remove(stage).map(|stage| stage.attempts).unwrap_or_default();
            let made = made.into_iter().enumerate().rev();
            made.map(move |(index, attempt)| Made { run: id.clone(), status, number: index + 1, attempt })
        };
        let counted = runs.filter(|run| scoped.counts(&run.pipeline, &run.file));
        let attempts: Vec<Made> = counted.flat_map(of_stage).take(limit).collect();
        if attempts.is_empty() {
            // Says whether there is no run at all, or none with that stage.
            self.run_with(stage, |stage| !stage.attempts.is_empty())?;
        }
        Ok(attempts)
    }

    /// `STAGE` or `STAGE.OUTPUT` of the chosen run, or else of the newest that has it.
    pub(super) fn output<'a>(&self, whole: &'a str) -> Result<Chosen<'a>, CliError> {
        let (home, run, stage, output) = self.find(whole)?;
        let outputs = &run.stages[stage].outputs;
        let found = match output {
            Some(output) => outputs.get_key_value(output),
            None => outputs.iter().next().filter(|_| outputs.len() == 1),
        };
        let (output, digest) = found.ok_or_else(|| none_such(stage, output, outputs))?;
        let (output, digest) = (output.clone(), *digest);
        Ok(Chosen { home, run, stage, output, digest })
    }

    /// The run to take from, the stage and, if it is named, the output.
    fn find<'a>(&self, whole: &'a str) -> Result<(Home, RunRecord, &'a str, Option<&'a str>), CliError> {
        let run_with = |stage: &str| self.run_with(stage, |stage| !stage.outputs.is_empty());
        let Some((stage, output)) = whole.rsplit_once('.') else {
            let (home, run) = run_with(whole)?;
            return Ok((home, run, whole, None));
        };
        // The values in the name of a stage of a matrix may hold dots; other names of stages hold none.
        if stage.contains('@')
            && let Ok((home, run)) = run_with(whole)
        {
            return Ok((home, run, whole, None));
        }
        let (home, run) = run_with(stage)?;
        Ok((home, run, stage, Some(output)))
    }

    /// The chosen run, or else the newest in which `stage` is `wanted`, and the home it lies in.
    pub(super) fn run_with(
        &self,
        stage: &str,
        wanted: impl Fn(&StageRun) -> bool,
    ) -> Result<(Home, RunRecord), CliError> {
        let scoped = self.scope.open()?;
        let found = match &self.run {
            Some(word) => {
                let run = scoped.choose(word)?;
                if run.stages.get(stage).is_some_and(&wanted) {
                    return Ok((scoped.home, run));
                }
                Some(run)
            }
            None => {
                let counts = |run: &RunRecord| scoped.counts(&run.pipeline, &run.file);
                let has = |run: &RunRecord| run.stages.get(stage).is_some_and(&wanted);
                if let Some(run) = scoped.runs.latest(|run| counts(run) && has(run)) {
                    return Ok((scoped.home, run));
                }
                scoped.runs.latest(counts)
            }
        };
        let place = scoped.home.root().display();
        let which = self.run.as_ref().and(found.as_ref()).map(|run| format!("the run {}", run.id));
        Err(match found {
            None => CliError::usage(format!("no run is recorded in {place}"), NO_RUNS_HELP.to_owned()),
            Some(run) if run.stages.contains_key(stage) => {
                let which = which.unwrap_or_else(|| format!("no run in {place}"));
                let negation = if self.run.is_some() { "has not" } else { "has" };
                CliError::usage(
                    format!("{which} {negation} what you ask for of the stage `{stage}`"),
                    "see how it ended with `pipe runs show`, or run the pipeline again".to_owned(),
                )
            }
            Some(run) => {
                let known = run.stages.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
                let (message, which) = match which {
                    Some(which) => (format!("{which} has no stage `{stage}`"), "it".to_owned()),
                    None => (format!("no run in {place} has a stage `{stage}`"), "the last one".to_owned()),
                };
                CliError::usage(message, format!("{which}, of `{}`, has {known}", run.pipeline))
            }
        })
    }
}
