//! Brings the stages of a pipeline up to date: one event loop, one worker process a running stage.
//!
//! The loop owns all state and decides; threads only wait (for a worker's lines, its end, signals) and send messages.
//! A stage is looked at once all its inputs are there: only then is its key known. If the cache has that key, it is
//! done; if another process is at work on the key, it waits; else it runs as soon as a slot is free.
//!
//! - A failure starts nothing more; stages that are already running come to their end first.
//! - A stage's artifacts appear in the cache all at once, after its worker has ended well, or not at all.
//! - The scheduler never touches a device, never loads libtorch and never prints.

mod active;
mod books;
mod ending;
mod engine;
mod environment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod keeper;
mod lines;
mod process;
mod programs;
mod signals;
mod strays;

use std::{io, num::NonZeroUsize};

use crate::{
    cache::{ActionRecord, CacheError, Home},
    config::{ConfigError, Pipeline, StageName},
    report::{Event, Sink, Summary},
};

pub use programs::{ProgramError, Programs};

/// What a run is asked to do.
#[derive(Debug, Clone)]
pub struct Options {
    /// The stages to bring up to date, with all that they need. Empty means all stages.
    pub targets: Vec<StageName>,
    /// How many stages may run at a time. Of those that use a GPU, one runs at a time.
    pub jobs: NonZeroUsize,
    /// The command that does the same again, for telling how to go on.
    pub again: String,
}

/// Why a run could not even begin, or not keep its books. What goes wrong with one stage is told by the [`Summary`].
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The stages depend on each other in a circle.
    #[error(transparent)]
    Pipeline(#[from] ConfigError),
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// The worker programs cannot be found.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// The system refuses threads or signals.
    #[error("cannot set up the scheduler's threads and signals")]
    System(#[from] io::Error),
}

impl RunError {
    /// The exit code: 2 for an invalid pipeline, 3 for what the environment lacks.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Pipeline(_) => 2,
            Self::Cache(_) | Self::Program(_) | Self::System(_) => 3,
        }
    }
}

/// What the threads tell the event loop.
#[derive(Debug)]
enum Message {
    /// From the worker of the stage with this index.
    Worker(usize, process::Said),
    /// What became of the outputs of the stage with this index.
    Kept(usize, Result<Box<ActionRecord>, ending::Ending>),
    /// Someone may want the run to stop: see [`signals::SignalWatch`].
    Signal,
}

/// Brings the pipeline's stages up to date, and tells `sink` what happens.
///
/// Must be called on a thread that lives until it returns, which every caller's does: workers die with it. While it
/// runs, SIGINT and SIGTERM stop the run instead of the program.
///
/// # Errors
/// If the run could not begin or its record could not be kept. A stage that fails is no error of this function.
pub fn run(pipeline: &Pipeline, home: &Home, options: &Options, sink: &mut dyn Sink) -> Result<Summary, RunError> {
    home.create()?;
    let _in_use =
        home.share(|holder| sink.event(&Event::CacheBusy { holder: holder.map(|holder| holder.to_string()) }))?;
    strays::adopt();
    engine::Engine::new(pipeline, home, options, sink)?.run()
}
