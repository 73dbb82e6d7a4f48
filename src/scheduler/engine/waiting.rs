//! The event loop's clock: what it waits for, and what is due.

use std::{
    cmp::Reverse,
    time::{Duration, Instant},
};

use pipe_stage::Level;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::Signal,
};

use super::Engine;
use crate::{
    report::{self, Event},
    scheduler::{RunError, active::Active, mailbox::Bell},
};

/// How long a stopped worker has to save what it has.
const GRACE: Duration = Duration::from_secs(60);

/// How often a worker is looked at whose end does not show by itself.
const SILENT_INTERVAL: Duration = Duration::from_millis(20);

/// Someone asked the run to stop.
pub(super) struct Stop {
    deadline: Instant,
    killed: bool,
}

impl Engine<'_> {
    /// Waits until a worker has something to say or ends, somebody rings, or a time has come. Says whether it rang,
    /// and whose workers have something to say.
    pub(super) fn wait(&mut self, bell: &Bell) -> Result<(bool, Vec<usize>), RunError> {
        let timeout = self.next_time().map(|time| time.saturating_duration_since(Instant::now()));
        let timeout = timeout.map(|timeout| Timespec {
            tv_sec: timeout.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: i64::from(timeout.subsec_nanos()),
        });
        let mut watched = vec![PollFd::new(bell, PollFlags::IN)];
        let mut owners = Vec::new();
        for (&index, active) in &self.running {
            for descriptor in active.worker.watched() {
                watched.push(PollFd::from_borrowed_fd(descriptor, PollFlags::IN));
                owners.push(index);
            }
        }
        match poll(&mut watched, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(RunError::System(error.into())),
        }
        let rung = !watched[0].revents().is_empty();
        let stirred = watched[1..].iter().zip(owners).filter(|(watched, _)| !watched.revents().is_empty());
        let mut stirred: Vec<usize> = stirred.map(|(_, index)| index).collect();
        stirred
            .extend(self.running.iter().filter(|(_, active)| active.worker.ends_silently()).map(|(&index, _)| index));
        stirred.sort_unstable();
        stirred.dedup();
        Ok((rung, stirred))
    }

    /// When the loop has something to do at the latest, though nothing happens.
    fn next_time(&self) -> Option<Instant> {
        let later = self.later.peek().map(|Reverse((time, _))| *time).filter(|_| self.may_begin());
        let gpus = self.gpus_again.filter(|_| self.may_begin());
        let stop = self.stop.as_ref().filter(|stop| !stop.killed).map(|stop| stop.deadline);
        let deadlines = self.running.values().filter_map(Active::deadline);
        let silent = self.running.values().any(|active| active.worker.ends_silently());
        let now = Instant::now();
        let look = silent.then_some(now + SILENT_INTERVAL);
        let redraw = self.report.sink.redraws_every().filter(|_| !self.running.is_empty());
        let redraw = redraw.map(|interval| now + interval);
        deadlines.chain(later).chain(gpus).chain(stop).chain(look).chain(redraw).min()
    }

    /// Does what is due.
    pub(super) fn mind_the_time(&mut self) {
        let now = Instant::now();
        if self.stop.as_ref().is_some_and(|stop| !stop.killed && now >= stop.deadline) {
            self.kill();
        }
        for (&index, active) in &mut self.running {
            if let Some(timeout) = active.mind_the_time(now, self.stages[index].spec.timeout) {
                let message = format!("its timeout of {} is over: it is stopped", report::duration(timeout));
                let stage = self.stages[index].spec.name.to_string();
                self.report.event(&Event::StageLog { stage, level: Level::Warn, message });
            }
        }
        if self.gpus_again.take_if(|time| *time <= now).is_some()
            && let Some(ledger) = &mut self.ledger
        {
            ledger.slots.look_again();
        }
        while let Some(Reverse((_, index))) = self.later.peek().copied().filter(|Reverse((time, _))| *time <= now) {
            self.later.pop();
            match self.stages[index].decision {
                Some(_) => self.enqueue(index),
                // It failed, and by now everything may be different.
                None => drop(self.undecided.insert(index)),
            }
        }
        self.report.sink.redraw();
    }

    /// Ctrl-C: the first time workers are asked to stop, the second time they are killed.
    pub(super) fn asked_to_stop(&mut self) {
        if self.stop.is_some() {
            return self.kill();
        }
        self.stop = Some(Stop { deadline: Instant::now() + GRACE, killed: false });
        self.report.event(&Event::RunStopping { grace_seconds: GRACE.as_secs() });
        self.running.values_mut().for_each(|active| active.stop(Signal::TERM));
    }

    fn kill(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.killed = true;
        }
        self.running.values_mut().for_each(|active| active.stop(Signal::KILL));
    }
}
