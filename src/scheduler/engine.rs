//! The event loop: what is to be done next, what a message means, when the run is over.
//!
//! A stage goes through these states, and the loop is the only one to move it: blocked by others, undecided, in the
//! queue (or later: tried again, or another process has its key), in preparation, running, being concluded, done.

mod beginning;
mod copies;
pub(super) mod hearing;
mod ledger;
mod outcome;
mod waiting;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    panic,
    time::Instant,
};

use pipe_stage::FailureClass;

use self::{
    copies::{Copied, Copying},
    hearing::Report,
    ledger::Ledger,
    outcome::{Concluding, Conclusion},
    waiting::Stop,
};
use super::{
    Options, RunError, Shared,
    active::Active,
    books::Books,
    crew::{self, Done},
    ending::Ending,
    heard::Heard,
    keeper::{Leavings, Unkept},
    mailbox::Mailbox,
    preparation::Preparation,
    process::{PIECE_BYTES, Said},
    queue::Queue,
    signals::SignalWatch,
    slots::Grant,
    stages::Stages,
};
use crate::{
    cache::ActionRecord,
    plan::{self, Action, CacheLookup},
    report::{Event, Sink, Skipped, StageLogs, Summary},
};

/// As many threads lay inputs out, hash outputs and wait for the disk.
const CREW: usize = 16;

/// What the crew tells the loop.
pub(super) enum Message {
    Prepared(usize, Preparation),
    Concluded(usize, Box<Conclusion>),
    Kept(Vec<(usize, Result<ActionRecord, Ending>, Leavings)>),
    CleanedUp,
    Copied(usize, Copied),
}

type Crew<'scope, 'env> = crew::Crew<'scope, 'env, Message>;

/// A run.
pub(super) struct Engine<'run> {
    shared: &'run Shared<'run>,
    options: &'run Options,
    lookup: CacheLookup,
    report: Report<'run>,
    books: Books,
    stages: Stages<'run>,
    /// All that they take from is there.
    undecided: BTreeSet<usize>,
    /// They have to run.
    queue: Queue,
    /// They go back into the queue at that time.
    later: BinaryHeap<Reverse<(Instant, usize)>>,
    /// When GPUs of other processes are asked for again, if a stage waits for one.
    gpus_again: Option<Instant>,
    /// The machine and the turns of the stages. Nobody asks before a stage has to run.
    ledger: Option<Ledger>,
    preparing: BTreeMap<usize, Grant>,
    running: BTreeMap<usize, Active>,
    concluding: BTreeMap<usize, Concluding>,
    /// What they made is to be kept, with the next group.
    unkept: Vec<(usize, Unkept)>,
    /// Whether a group is being kept.
    keeping: bool,
    /// Up to date, but for copies of their outputs.
    copying: BTreeMap<usize, Copying>,
    stop: Option<Stop>,
    /// They have failed, and only their leavings are still to be cleaned up.
    doomed: BTreeSet<usize>,
    failed: Vec<(usize, FailureClass)>,
    skipped: Vec<Skipped>,
    piece: Box<[u8]>,
}

impl<'run> Engine<'run> {
    pub(super) fn new(
        shared: &'run Shared<'run>,
        options: &'run Options,
        lookup: CacheLookup,
        stages: Stages<'run>,
        books: Books,
        sink: &'run mut dyn Sink,
    ) -> Self {
        Self {
            shared,
            options,
            lookup,
            report: Report { sink, logs: StageLogs::default() },
            books,
            undecided: stages.unblocked().collect(),
            stages,
            queue: Queue::default(),
            later: BinaryHeap::new(),
            gpus_again: None,
            ledger: None,
            preparing: BTreeMap::new(),
            running: BTreeMap::new(),
            concluding: BTreeMap::new(),
            unkept: Vec::new(),
            keeping: false,
            copying: BTreeMap::new(),
            stop: None,
            doomed: BTreeSet::new(),
            failed: Vec::new(),
            skipped: Vec::new(),
            piece: vec![0; PIECE_BYTES].into(),
        }
    }

    pub(super) fn run(mut self) -> Result<Summary, RunError> {
        let _span = tracing::info_span!("run", id = self.books.run()).entered();
        let mailbox: Mailbox<Done<Message>> = Mailbox::new()?;
        let signals = SignalWatch::start(mailbox.bell().clone())?;
        self.report.event(&Event::RunStarted {
            run: self.books.run(),
            pipeline: self.shared.pipeline.name.clone(),
            stages: self.stages.iter().map(|stage| stage.spec.name.to_string()).collect(),
        });
        std::thread::scope(|scope| {
            let mut crew = Crew::new(scope, mailbox.post(), CREW);
            self.drive(&signals, &mailbox, &mut crew)
        })?;
        self.give_up_retries();
        self.finish()
    }

    /// The loop. Ends when nothing is at work and nothing can begin.
    fn drive<'scope>(
        &mut self,
        signals: &SignalWatch,
        mailbox: &Mailbox<Done<Message>>,
        crew: &mut Crew<'scope, '_>,
    ) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        let mut heeded = 0;
        loop {
            while heeded < signals.count() {
                heeded += 1;
                self.asked_to_stop();
            }
            self.decide_what_can();
            self.begin_what_fits(crew)?;
            self.keep_what_is_ready(crew)?;
            self.copy_what_is_there(crew)?;
            let at_work = !self.preparing.is_empty()
                || !self.running.is_empty()
                || !self.concluding.is_empty()
                || !self.copying.is_empty();
            let waits = self.may_begin() && (!self.later.is_empty() || self.gpus_again.is_some());
            if !at_work && !waits {
                return Ok(());
            }
            let (rung, stirred) = self.wait(mailbox.bell())?;
            for index in stirred {
                self.attend(index, crew)?;
            }
            for message in rung.then(|| mailbox.empty()).into_iter().flatten() {
                match message.unwrap_or_else(|bug| panic::resume_unwind(bug)) {
                    Message::Prepared(index, preparation) => self.prepared(index, preparation),
                    Message::Concluded(index, conclusion) => self.concluded(index, *conclusion),
                    Message::Kept(group) => self.group_kept(group, crew)?,
                    Message::CleanedUp => {}
                    Message::Copied(index, copied) => self.copied(index, copied),
                }
            }
            self.mind_the_time();
        }
    }

    fn may_begin(&self) -> bool {
        let failed = !self.failed.is_empty() || !self.doomed.is_empty();
        self.stop.is_none() && (!failed || self.options.keep_going)
    }

    /// Takes what is in the cache, and puts what is not into the queue: all of it, before the first stage begins, so
    /// that the one with the longest way behind it is among those to choose from.
    fn decide_what_can(&mut self) {
        let mut to_run = Vec::new();
        while self.may_begin()
            && let Some(index) = self.undecided.pop_first()
        {
            let stage = &self.stages[index];
            let external = self.shared.externals.of(&stage.spec.name);
            let mut decision = plan::decide(stage.spec, self.stages.inputs(index), external, &self.lookup);
            if stage.forced {
                decision.action = decision.action.forced();
            }
            match decision.action {
                Action::Hit { outputs } => self.hit(index, &decision.key, outputs, decision.known),
                Action::Run { .. } | Action::Maybe { .. } => {
                    self.stages.get_mut(index).decision = Some(decision);
                    to_run.push(index);
                }
            }
        }
        for index in to_run {
            self.enqueue(index);
        }
    }

    /// Hears what the worker of a stage has said since, and looks whether it has ended.
    fn attend<'scope>(&mut self, index: usize, crew: &mut Crew<'scope, '_>) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        let spec = self.stages[index].spec;
        let (report, piece) = (&mut self.report, &mut self.piece);
        let mut said = |heard: &mut Heard, said: Said<'_>| report.heard(spec.name.as_str(), heard, said);
        let Some(active) = self.running.get_mut(&index) else { return Ok(()) };
        active.listen(piece, &mut said);
        if !active.worker.has_ended() {
            return Ok(());
        }
        let Some(active) = self.running.remove(&index) else { return Ok(()) };
        let (ended, grant) = active.reap(piece, &mut said);
        if let Some(lines) = ended.noise() {
            self.report.warn(spec.name.as_str(), format!("its worker wrote {lines} lines that are no events"));
        }
        self.give_back(grant);
        self.ended(index, ended, crew)
    }

    fn give_back(&mut self, grant: Grant) {
        if let Some(ledger) = &mut self.ledger {
            ledger.slots.give_back(grant);
        }
    }

    fn name(&self, index: usize) -> String {
        self.stages[index].spec.name.to_string()
    }
}
