//! The arguments that choose recorded runs, shared by the commands that look back.

use std::path::{Path, PathBuf};

use clap::Args;

use super::{CliError, candidates};
use crate::{
    cache::Home,
    config, registry,
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
    pipeline: Option<Chosen>,
}

enum Chosen {
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
                    Ok(pipeline) => Chosen::Name(pipeline.name),
                    Err(_) if absolute.is_file() => Chosen::File(absolute),
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
            Some(Chosen::Name(wanted)) => wanted == name,
            Some(Chosen::File(wanted)) => wanted == file,
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
