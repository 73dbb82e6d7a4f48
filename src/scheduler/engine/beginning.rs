//! From a stage that has to run to its worker: the queue, the slots, the preparation, the launch.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use pipe_stage::Level;

use super::{Crew, Engine, Ledger, Message};
use crate::{
    cache::{CacheError, Holder},
    plan::{Action, Decision, Reason},
    report::Event,
    scheduler::{
        RunError,
        active::Active,
        ending::Ending,
        preparation::{Order, Preparation, Ready},
        slots::{Demand, Elsewhere, Grant},
    },
};

/// How often a lock that another process holds is asked for again.
const LOCK_INTERVAL: Duration = Duration::from_millis(50);

/// How often a GPU that another process has is asked for again.
const GPU_INTERVAL: Duration = Duration::from_millis(200);

/// While so many stages are being concluded, no other one begins: the disk does not keep up.
const MOST_CONCLUDING: usize = 64;

impl<'run> Engine<'run> {
    pub(super) fn enqueue(&mut self, index: usize) {
        let spec = self.stages[index].spec;
        let ledger = self.ledger.get_or_insert_with(|| {
            let user = format!("process {}, which runs `{}`", std::process::id(), self.shared.pipeline.name);
            Ledger::new(self.options, &self.stages, &self.lookup, user)
        });
        if let Some(excess) = ledger.slots.capacity().excess(&spec.name, &spec.resources) {
            let ending = Ending::environment(&excess, Some(excess.help.clone()));
            return self.failed(index, ending, None, 0.0);
        }
        self.queue.insert(Demand::of(&spec.resources, ledger.unsaid_cpus), ledger.turns[index], index);
    }

    pub(super) fn begin_what_fits<'scope>(&mut self, crew: &mut Crew<'scope, '_>) -> Result<(), RunError>
    where
        'run: 'scope,
    {
        while self.may_begin()
            && self.concluding.len() < MOST_CONCLUDING
            && let Some(ledger) = &mut self.ledger
            && let Some((index, demand)) = self.queue.next(&ledger.slots)
        {
            let (shared, stage) = (self.shared, self.stages.get_mut(index));
            let Some(decision) = stage.decision.take() else { continue };
            let grant = match ledger.slots.take(demand, &stage.spec.resources) {
                Ok(grant) => grant,
                Err(elsewhere) => {
                    stage.decision = Some(decision);
                    self.queue.insert(demand, ledger.turns[index], index);
                    self.wait_for_gpu(index, elsewhere);
                    continue;
                }
            };
            stage.key = Some(decision.key);
            let order = Order { spec: stage.spec, decision, forced: stage.forced };
            self.preparing.insert(index, grant);
            crew.give(move || Message::Prepared(index, order.prepare(shared)))?;
        }
        Ok(())
    }

    pub(super) fn prepared(&mut self, index: usize, preparation: Preparation) {
        let Some(grant) = self.preparing.remove(&index) else { return };
        match preparation {
            Preparation::Ready(ready) if self.may_begin() => return self.launch(index, *ready, grant),
            // Meanwhile the run was asked to stop, or another stage failed.
            Preparation::Ready(_) => {}
            Preparation::Busy(decision, holder) => self.wait_for(index, *decision, holder),
            Preparation::Hit(decision) => {
                if let Action::Hit { outputs } = decision.action {
                    self.hit(index, &decision.key, outputs, decision.known);
                }
            }
            Preparation::Failed(ending) => self.failed(index, ending, None, 0.0),
        }
        self.give_back(grant);
    }

    /// Other processes of this machine have too many of its GPUs.
    fn wait_for_gpu(&mut self, index: usize, elsewhere: Elsewhere) {
        self.gpus_again.get_or_insert_with(|| Instant::now() + GPU_INTERVAL);
        if !std::mem::replace(&mut self.stages.get_mut(index).waits_for_gpu_aloud, true) {
            let Elsewhere { gpu, user } = elsewhere;
            self.report.event(&Event::StageWaitingForGpu { stage: self.name(index), gpu, user });
        }
    }

    /// Another process, or another stage of this run, has the key of the stage, which holds no slot while it waits.
    fn wait_for(&mut self, index: usize, decision: Decision, holder: Option<Holder>) {
        self.later.push(Reverse((Instant::now() + LOCK_INTERVAL, index)));
        let mut at_work = self.preparing.keys().chain(self.running.keys()).chain(self.concluding.keys());
        let twin = at_work.find(|&&other| other != index && self.stages[other].key == Some(decision.key)).copied();
        let stage = self.stages.get_mut(index);
        stage.decision = Some(decision);
        if !std::mem::replace(&mut stage.waits_aloud, true) {
            let holder = match twin {
                Some(twin) => Some(format!("the stage `{}`", self.name(twin))),
                None => holder.map(|holder| holder.to_string()),
            };
            self.report.event(&Event::StageWaiting { stage: self.name(index), holder });
        }
    }

    fn launch(&mut self, index: usize, ready: Ready, grant: Grant) {
        let spec = self.stages[index].spec;
        if let Err(error) = self.books.began(&spec.name, ready.attempt.lock().key(), &ready.reasons) {
            self.give_back(grant);
            return self.failed(index, Ending::environment(&error, None), None, 0.0);
        }
        let log = self.books.log(&spec.name);
        let path = self.shared.home.root().join(&log);
        if let Err(source) = self.report.logs.begin(spec.name.as_str(), &path) {
            let error = CacheError::Io { action: "open the stage's log", path, source };
            self.give_back(grant);
            return self.failed(index, Ending::environment(&error, None), None, 0.0);
        }
        self.report.event(&Event::StageStarted {
            stage: self.name(index),
            kind: spec.declaration.kind.to_owned(),
            reasons: ready.reasons.iter().map(Reason::to_string).collect(),
            log: path,
        });
        for maker in self.stages.stale_makers(index) {
            let message = format!("it takes what `{maker}` made the last time, which is not up to date");
            self.report.event(&Event::StageLog { stage: self.name(index), level: Level::Warn, message });
        }
        tracing::debug!(stage = spec.name.as_str(), key = %ready.attempt.lock().key(), "a stage begins");
        let stage = self.stages.get_mut(index);
        stage.attempts += 1;
        stage.to_retry = None;
        match Active::launch(ready, spec, grant, log.clone()) {
            Ok(active) => drop(self.running.insert(index, active)),
            Err(failed) => {
                let (grant, ending) = *failed;
                self.give_back(grant);
                self.failed(index, ending, Some(&log), 0.0);
            }
        }
    }
}
