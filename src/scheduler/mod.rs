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
mod borrow;
mod capacity;
mod crew;
mod ending;
mod engine;
mod environment;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod gpus;
mod heard;
mod keeper;
mod lines;
mod mailbox;
mod preparation;
mod priority;
mod process;
mod programs;
mod queue;
mod signals;
mod slots;
mod stages;
mod strays;

use std::{io, num::NonZeroUsize, time::Instant};

use pipe_stage::{FailureClass, Runner};

use crate::{
    cache::{self, CacheError, Home, Records, Store, UserFiles},
    config::{ConfigError, Pipeline, StageName, StageSpec},
    foresight::Made,
    graph::Graph,
    pins::{self, Pins, PinsError, SettleError},
    plan::{Action, CacheLookup, Externals, Plan},
    report::{Event, Sink, Summary},
    selection::{Request, Selection, SelectionError},
};

pub use borrow::{Borrowed, BorrowedGpu, borrow_gpu};
pub use capacity::{Excess, Offer, OfferError};
pub(crate) use environment::worker_environment;
pub use programs::{ProgramError, Programs};

/// What a run is asked to do.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The stages to bring up to date.
    pub request: Request,
    /// The stages for which the newest version of what they name elsewhere is asked for.
    pub refresh: Vec<StageName>,
    /// The kinds that can tell what such names stand for.
    pub runners: Vec<Runner>,
    /// How many stages may run at a time; then a stage that does not say how many CPUs it uses counts for none. Without
    /// it, as many as the machine has CPUs for, and such a stage counts for one.
    pub jobs: Option<NonZeroUsize>,
    /// What stages may use of the machine.
    pub resources: Offer,
    /// Whether a failure holds up only the stages that need what failed.
    pub keep_going: bool,
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
    /// The stages that are asked for do not go together, or lack what others should have made.
    #[error(transparent)]
    Selection(#[from] SelectionError),
    /// It is not known what a name of something elsewhere stands for.
    #[error(transparent)]
    Settle(#[from] SettleError),
    /// A stage that has to run asks for more than there is.
    #[error(transparent)]
    Excess(#[from] Excess),
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
            Self::Pipeline(_) | Self::Selection(_) => 2,
            Self::Settle(SettleError::File(PinsError::Invalid(_)) | SettleError::NothingMoves { .. }) => 2,
            Self::Settle(SettleError::Unknown { class: FailureClass::Stage, .. }) => 1,
            Self::Settle(_) => 3,
            Self::Excess(_) | Self::Cache(_) | Self::Program(_) | Self::System(_) => 3,
        }
    }

    /// What to do about it.
    pub fn help(&self) -> Option<String> {
        match self {
            Self::Selection(error) => Some(error.help()),
            Self::Excess(error) => Some(error.help.clone()),
            Self::Program(error) => error.hint(),
            Self::Settle(SettleError::Unknown { hint, .. }) => hint.clone(),
            Self::Settle(_) => None,
            Self::Cache(error) => error.hint().map(str::to_owned),
            Self::Pipeline(_) | Self::System(_) => None,
        }
    }
}

/// What the event loop and its crew work with; none of it changes while they do.
struct Shared<'run> {
    pipeline: &'run Pipeline,
    home: &'run Home,
    store: Store,
    records: Records,
    programs: Programs,
    externals: Externals,
}

/// Brings the pipeline's stages up to date, and tells `sink` what happens.
///
/// Must be called on a thread that lives until it returns, which every caller's does: workers die with it. While it
/// runs, SIGINT and SIGTERM stop the run instead of the program.
///
/// # Errors
/// If the run could not begin or its record could not be kept. A stage that fails is no error of this function.
pub fn run(pipeline: &Pipeline, home: &Home, options: &Options, sink: &mut dyn Sink) -> Result<Summary, RunError> {
    let clock = Instant::now();
    let graph = Graph::new(pipeline)?;
    let selection = options.request.select(&graph)?;
    home.create()?;
    let _in_use =
        home.share(|holder| sink.event(&Event::CacheBusy { holder: holder.map(|holder| holder.to_string()) }))?;
    if let Err(error) = cache::sweep(home) {
        tracing::warn!(error = &error as &dyn std::error::Error, "scratch of earlier runs is left");
    }
    strays::adopt();
    let told = |told: pins::Told<'_>| sink.event(&told.into());
    let pins = pins::settle(pipeline, &selection.stages, &options.refresh, &options.runners, told)?;
    let outlook = Outlook::new(pipeline, home, graph, selection, &pins)?;
    outlook.refuse_excess(&options.resources)?;
    let Outlook { graph, selection, externals, mut lookup, .. } = outlook;
    let (store, records, programs) = (Store::new(home), Records::new(home), Programs::locate()?);
    let shared = Shared { pipeline, home, store, records, programs, externals };
    let stages = stages::Stages::new(pipeline, &graph, &selection);
    let written = pipeline.source.digest();
    let resolved = lookup.state().resolved(&written);
    let specs = stages.iter().map(|stage| stage.spec);
    let books = books::Books::open(pipeline, home, specs, &options.request, resolved, clock)?;
    lookup.state_mut().note_resolved(written, books.resolved());
    engine::Engine::new(&shared, options, lookup, stages, books, sink).run()
}

/// What [`run`] would do.
///
/// # Errors
/// If such a run could not begin.
pub fn plan(pipeline: &Pipeline, home: &Home, request: &Request) -> Result<Plan, RunError> {
    Ok(plan_with_made(pipeline, home, request)?.0)
}

/// The same, with the artifacts that are there.
///
/// # Errors
/// Those of [`plan`].
pub fn plan_with_made(pipeline: &Pipeline, home: &Home, request: &Request) -> Result<(Plan, Made), RunError> {
    let graph = Graph::new(pipeline)?;
    let selection = request.select(&graph)?;
    let pins = Pins::load(&pipeline.folder).map_err(SettleError::from)?;
    let outlook = Outlook::new(pipeline, home, graph, selection, &pins)?;
    let plan = outlook.plan();
    let mut made = outlook.selection.given;
    for stage in &plan.stages {
        if let Action::Hit { outputs } = &stage.action {
            made.insert(stage.stage.clone(), outputs.clone());
        }
    }
    Ok((plan, made))
}

/// All that a plan needs, looked up.
struct Outlook<'run> {
    pipeline: &'run Pipeline,
    graph: Graph,
    selection: Selection,
    externals: Externals,
    lookup: CacheLookup,
}

impl<'run> Outlook<'run> {
    fn new(
        pipeline: &'run Pipeline,
        home: &Home,
        graph: Graph,
        mut selection: Selection,
        pins: &Pins,
    ) -> Result<Self, RunError> {
        let (looked_at, files) = (selection.looked_at(&graph), UserFiles::new(home));
        let externals = Externals::identify(pipeline, &looked_at, &files, pins, |name| std::env::var_os(name))?;
        let lookup = CacheLookup::new(home, &pipeline.name);
        selection.take_given(pipeline, &graph, &externals, &lookup)?;
        Ok(Self { pipeline, graph, selection, externals, lookup })
    }

    fn plan(&self) -> Plan {
        Plan::new(self.pipeline, &self.graph, &self.selection, &self.externals, &self.lookup)
    }

    /// Refuses stages that have to run and could not, before anything begins. One that is up to date, or may turn out
    /// to be, may ask for what it wants: its artifacts may come from a larger machine.
    fn refuse_excess(&self, offer: &Offer) -> Result<(), Excess> {
        let asks = |spec: &&StageSpec| {
            let resources = &spec.resources;
            resources.gpus > 0 || resources.cpus.is_some() || resources.memory_bytes.is_some()
        };
        let stages = self.selection.stages.iter().filter_map(|name| self.pipeline.stages.get(name));
        let asking: Vec<&StageSpec> = stages.filter(asks).collect();
        if asking.is_empty() {
            return Ok(());
        }
        let capacity = capacity::Capacity::here(offer);
        let mut excesses = asking.iter().filter_map(|spec| capacity.excess(&spec.name, &spec.resources)).peekable();
        if excesses.peek().is_none() {
            return Ok(());
        }
        let plan = self.plan();
        let runs = |excess: &Excess| {
            let mut stages = plan.stages.iter().filter(|stage| matches!(stage.action, Action::Run { .. }));
            stages.any(|stage| stage.stage == excess.stage)
        };
        excesses.find(runs).map_or(Ok(()), Err)
    }
}
