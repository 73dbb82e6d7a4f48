//! What a run tells the outside world: typed events, and the consumers that turn them into text.
//!
//! The scheduler emits [`Event`]s into a [`Sink`] and never prints. A consumer never decides anything: leaving one out
//! changes no artifact, no key and no exit code.

mod format;
mod human;
mod json;
mod live;
mod log_file;
mod meter;
mod stage_log;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use indexmap::IndexMap;
use pipe_stage::{Digest, FailureClass, Level};
use serde::Serialize;

use crate::pins::{Settled, Told};

pub use format::{
    amount, bytes, count, duration, measurement, moment, named, padded, plural, printable, short_moment, width,
};
pub use human::Human;
pub use json::JsonLines;
pub(crate) use stage_log::{StageLogs, tail};

/// Takes the events of a run, in the order in which they happen.
pub trait Sink {
    /// One thing that happened.
    fn event(&mut self, event: &Event);

    /// How often [`Sink::redraw`] should be called while stages run, if at all.
    fn redraws_every(&self) -> Option<Duration> {
        None
    }

    /// Time has passed.
    fn redraw(&mut self) {}
}

/// A sink for those who only want the result.
#[derive(Debug, Default, Clone, Copy)]
pub struct Silent;

impl Sink for Silent {
    fn event(&mut self, _event: &Event) {}
}

/// One thing that happened in a run. As JSON, the field `event` names the variant.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// Another process removes what is not needed from the cache; the run begins when that is over.
    CacheBusy {
        /// Who is at it, as far as that is known.
        holder: Option<String>,
    },
    /// Another machine is asked what the name of something stands for; before the run begins.
    Pinning {
        /// The stage that names it.
        stage: String,
        /// The name.
        name: String,
    },
    /// It answered.
    Pinned {
        /// The stage that names it.
        stage: String,
        /// The name.
        name: String,
        /// What it stood for; `None` if that was not known.
        from: Option<String>,
        /// What it stands for.
        to: String,
    },
    /// The first event, but for [`Event::CacheBusy`], [`Event::Pinning`] and [`Event::Pinned`].
    RunStarted {
        /// The run's id.
        run: String,
        /// The pipeline's name.
        pipeline: String,
        /// The stages that this run brings up to date, each after those that it takes
        /// from.
        stages: Vec<String>,
    },
    /// The stage's artifact is there already.
    StageHit {
        /// The stage.
        stage: String,
    },
    /// Another run is making the very same artifact; this one waits for it.
    StageWaiting {
        /// The stage.
        stage: String,
        /// Who is at it, as far as that is known.
        holder: Option<String>,
    },
    /// Other processes of this machine have the GPUs that the stage needs; it waits for them.
    StageWaitingForGpu {
        /// The stage.
        stage: String,
        /// One of the GPUs, by the name that `CUDA_VISIBLE_DEVICES` takes.
        gpu: String,
        /// Who has it, as far as that is known.
        user: Option<String>,
    },
    /// A worker begins.
    StageStarted {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: String,
        /// Why there was no hit.
        reasons: Vec<String>,
        /// Where its log goes.
        log: PathBuf,
    },
    /// How far a stage is.
    StageProgress {
        /// The stage.
        stage: String,
        /// What is counted: `rows`, `bytes`, `steps`.
        unit: String,
        /// Done so far.
        done: u64,
        /// All there is to do, where that is known.
        total: Option<u64>,
    },
    /// The measurements of one step.
    StageMetric {
        /// The stage.
        stage: String,
        /// The step, from 1.
        step: u64,
        /// Name to value.
        values: IndexMap<String, f64>,
    },
    /// A figure of the stage's work.
    StageFigure {
        /// The stage.
        stage: String,
        /// The figure's name.
        name: String,
        /// Its value.
        value: serde_json::Value,
    },
    /// Something a person should read.
    StageLog {
        /// The stage.
        stage: String,
        /// How important it is.
        level: Level,
        /// A sentence.
        message: String,
    },
    /// The stage's new artifact is in the cache.
    StageFinished {
        /// The stage.
        stage: String,
        /// How long its worker took, in seconds.
        seconds: f64,
        /// The digests of its outputs, by name.
        outputs: BTreeMap<String, Digest>,
    },
    /// The stage made no artifact, and will be tried again.
    StageRetrying {
        /// The stage.
        stage: String,
        /// Which attempt failed, counted from 1.
        attempt: u32,
        /// How often it is tried again at most.
        retries: u32,
        /// Why.
        failure: StageFailure,
        /// How long the attempt took, in seconds.
        seconds: f64,
        /// How long the stage waits before the next attempt, in seconds.
        delay_seconds: f64,
    },
    /// The stage's turn will not come.
    StageSkipped(Skipped),
    /// The stage made no artifact.
    StageFailed {
        /// The stage.
        stage: String,
        /// Its kind.
        kind: String,
        /// Why.
        failure: StageFailure,
        /// How long it took, in seconds.
        seconds: f64,
    },
    /// Someone asked the run to stop; running stages save what they can.
    RunStopping {
        /// Stages that have not ended after so long, in seconds, are killed.
        grace_seconds: u64,
    },
    /// The last event.
    RunFinished(Summary),
}

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// The run's id.
    pub run: String,
    /// How it ended.
    pub outcome: Outcome,
    /// How many stages ran to their end.
    pub ran: usize,
    /// How many were up to date.
    pub hits: usize,
    /// How many were not brought up to date, failed ones among them.
    pub unfinished: usize,
    /// The stages that failed.
    pub failed: Vec<String>,
    /// In a run that goes on after a failure, the stages that could not.
    pub skipped: Vec<Skipped>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// The command that goes on from here, unless all is done.
    pub go_on: Option<String>,
}

/// A stage whose turn does not come in this run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The stage.
    pub stage: String,
    /// The stage that failed, from which it takes, maybe through others.
    pub because: String,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every stage asked for is up to date.
    Done,
    /// A stage failed.
    StageFailed,
    /// The machine lacks what a stage needs.
    EnvironmentLacks,
    /// Someone stopped it.
    Cancelled,
}

impl From<Told<'_>> for Event {
    fn from(told: Told<'_>) -> Self {
        match told {
            Told::Asks { stage, name } => Self::Pinning { stage: stage.to_string(), name: name.to_owned() },
            Told::Knows(Settled { stage, name, from, to }) => {
                Self::Pinned { stage: stage.to_string(), name: name.clone(), from: from.clone(), to: to.clone() }
            }
        }
    }
}

impl Outcome {
    /// The exit code of `pipe run`: 0 done, 1 a stage failed or the run was stopped, 3 the environment lacks something.
    pub fn exit_code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::StageFailed | Self::Cancelled => 1,
            Self::EnvironmentLacks => 3,
        }
    }
}

/// Why a stage made no artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StageFailure {
    /// Whose fault it is.
    pub class: FailureClass,
    /// The error and its causes, outermost first. Never empty.
    pub chain: Vec<String>,
    /// What to do about it.
    pub hint: Option<String>,
    /// Where its log is, if it came so far as to have one.
    pub log: Option<PathBuf>,
    /// The last lines of the log.
    pub tail: Vec<String>,
}
