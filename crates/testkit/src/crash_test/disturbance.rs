//! How two runs at work on one pipeline are disturbed.

use std::{fmt, path::Path, thread, time::Duration};

use pipe_stage::crash::{CRASH_AT, CRASH_IN};
use rustix::process::{Signal, kill_process};

use super::{
    Failure,
    points::{Point, Whose},
    process::{Ended, Process},
    random::Random,
};

/// About as many events as an undisturbed run tells of, and a few more.
const EVENTS: u64 = 110;

/// About as long as an undisturbed run takes.
const MILLISECONDS: u64 = 700;

/// Between two events, a moment is this much later at most.
const JITTER_MICROSECONDS: u64 = 8000;

/// A crash point is passed this often or more, by one process, seldom.
const PASSINGS: u64 = 25;

/// Stages whose workers are killed at a crash point: each has several files, one of them steps, one two outputs.
const STAGES: &[&str] = &["s1", "t0", "f2", "m3", "j0"];

/// A disturbance.
#[derive(Debug, Clone)]
pub(crate) enum Disturbance {
    /// One process, or both, or the workers of one stage, die at a crash point.
    Point {
        /// Name and number of the passing.
        at: String,
        /// Whose, if not the scheduler's.
        whose: Option<String>,
        both: bool,
    },
    /// Somebody is killed at some moment.
    Moment { moment: Moment, victim: Victim },
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// After so many events of the first process, and some microseconds.
    Events(u64, u64),
    /// After so many milliseconds.
    Milliseconds(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Victim {
    First,
    Second,
    Both,
    /// One of the workers of the first, by a number that chooses among them.
    Worker(u64),
    /// The first and all its workers.
    FirstAndWorkers,
}

impl Disturbance {
    /// At `point`, passed the first time by one process.
    pub(crate) fn first_passing(point: Point) -> Self {
        Self::at(point, 1, 0, false)
    }

    /// At `point`, passed some time by one process or by both.
    pub(crate) fn some_passing(point: Point, both: bool, random: &mut Random) -> Self {
        let often = point.name.starts_with("file.") || point.name.starts_with("object.");
        let passing = match point.whose {
            Whose::Worker => 1,
            Whose::Scheduler if point.name == "scheduler.before-end" => 1,
            Whose::Scheduler => 1 + random.below(if often { 3 * PASSINGS } else { PASSINGS }),
        };
        Self::at(point, passing, random.below(STAGES.len() as u64) as usize, both)
    }

    fn at(point: Point, passing: u64, stage: usize, both: bool) -> Self {
        let whose = (point.whose == Whose::Worker).then(|| format!("worker:{}", STAGES[stage]));
        Self::Point { at: format!("{}:{passing}", point.name), whose, both }
    }

    /// The same, at the crash point in both processes.
    pub(crate) fn of_both(self) -> Self {
        match self {
            Self::Point { at, whose, .. } => Self::Point { at, whose, both: true },
            other => other,
        }
    }

    /// At any moment.
    pub(crate) fn some_moment(random: &mut Random) -> Self {
        let moment = if random.below(3) == 0 {
            Moment::Milliseconds(random.below(MILLISECONDS))
        } else {
            Moment::Events(random.below(EVENTS), random.below(JITTER_MICROSECONDS))
        };
        let victims = [
            Victim::First,
            Victim::First,
            Victim::Second,
            Victim::Both,
            Victim::Both,
            Victim::Worker(random.below(4)),
            Victim::FirstAndWorkers,
        ];
        Self::Moment { moment, victim: *random.one_of(&victims) }
    }

    /// Starts two runs in `folder` and disturbs them. Gives both when they have ended.
    pub(crate) fn happen(&self, program: &Path, folder: &Path) -> Result<[Ended; 2], Failure> {
        let crash = match self {
            Self::Point { at, whose, .. } => Some((at.as_str(), whose.as_deref())),
            Self::Moment { .. } => None,
        };
        let both = matches!(self, Self::Point { both: true, .. });
        let first = Process::start(program, folder, crash)?;
        let second = Process::start(program, folder, crash.filter(|_| both))?;
        if let Self::Moment { moment, victim } = self {
            moment.wait(&first);
            victim.kill(&first, &second);
        }
        let ended = [first.finish()?, second.finish()?];
        for (number, ended) in ended.iter().enumerate() {
            self.judge(number, ended)?;
        }
        Ok(ended)
    }

    /// Whoever was not killed himself, nor lost a worker, must have come to a good end in spite of what happened.
    fn judge(&self, number: usize, ended: &Ended) -> Result<(), Failure> {
        let lost_a_worker = match self {
            Self::Point { whose, both, .. } => whose.is_some() && (number == 0 || *both),
            Self::Moment { victim, .. } => number == 0 && matches!(victim, Victim::Worker(_)),
        };
        let fine = match ended.status.code() {
            Some(0) => true,
            Some(1) => lost_a_worker,
            Some(_) => false,
            None => ended.was_killed() && self.may_kill(number),
        };
        if fine { Ok(()) } else { Err(Failure::Broken(format!("run {} ended with {}", number + 1, ended.status))) }
    }

    fn may_kill(&self, number: usize) -> bool {
        match self {
            Self::Point { whose, both, .. } => whose.is_none() && (number == 0 || *both),
            Self::Moment { victim: Victim::First | Victim::FirstAndWorkers, .. } => number == 0,
            Self::Moment { victim: Victim::Second, .. } => number == 1,
            Self::Moment { victim: Victim::Both, .. } => true,
            Self::Moment { victim: Victim::Worker(_), .. } => false,
        }
    }

    /// Whether the crash point was reached: somebody died of it.
    pub(crate) fn was_reached(&self, ended: &[Ended; 2]) -> bool {
        match self {
            Self::Point { whose: None, .. } => ended.iter().any(Ended::was_killed),
            Self::Point { whose: Some(_), .. } => {
                ended.iter().any(|ended| ended.stages("stage_failed").next().is_some())
            }
            Self::Moment { .. } => true,
        }
    }
}

impl Moment {
    fn wait(self, first: &Process) {
        match self {
            Self::Events(events, microseconds) => {
                first.wait_for_events(events);
                thread::sleep(Duration::from_micros(microseconds));
            }
            Self::Milliseconds(milliseconds) => thread::sleep(Duration::from_millis(milliseconds)),
        }
    }
}

impl Victim {
    fn kill(self, first: &Process, second: &Process) {
        match self {
            Self::First => first.kill(),
            Self::Second => second.kill(),
            Self::Both => {
                first.kill();
                second.kill();
            }
            Self::Worker(number) => {
                let workers = first.workers();
                if let Some(worker) = workers.get(number as usize % workers.len().max(1)) {
                    let _ = kill_process(*worker, Signal::KILL);
                }
            }
            Self::FirstAndWorkers => {
                let workers = first.workers();
                first.kill();
                for worker in workers {
                    let _ = kill_process(worker, Signal::KILL);
                }
            }
        }
    }
}

impl fmt::Display for Disturbance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Point { at, whose, both } => {
                if let Some(whose) = whose {
                    write!(f, "{CRASH_IN}={whose} ")?;
                }
                write!(f, "{CRASH_AT}={at} in {}", if *both { "both runs" } else { "one of two runs" })
            }
            Self::Moment { moment, victim } => write!(f, "kill {victim:?} after {moment:?}"),
        }
    }
}
