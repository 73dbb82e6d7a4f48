//! Named moments at which a process can be made to die, so that survival is tested in the program that users run.
//!
//! `PIPE_CRASH_AT=NAME` kills the process with SIGKILL, as a power cut or the kernel's out-of-memory killer would, when
//! it passes the point `NAME`; `PIPE_CRASH_AT=NAME:3` the third time. `PIPE_CRASH_IN=worker` kills the workers instead
//! of the scheduler, `PIPE_CRASH_IN=worker:STAGE` those of one stage. Nothing is unwound, flushed or cleaned up.
//!
//! Where neither variable is set, a point costs one load of an initialised cell.

use std::{
    ffi::{OsStr, OsString},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// Names the point, and which passing of it is the last.
pub const CRASH_AT: &str = "PIPE_CRASH_AT";

/// Says whose points count: unset for the scheduler's, else `worker` or `worker:STAGE`.
pub const CRASH_IN: &str = "PIPE_CRASH_IN";

/// Where this process is to die.
#[derive(Debug, PartialEq, Eq)]
struct Doom {
    name: String,
    /// Counted from 1.
    passing: u64,
}

static DOOM: OnceLock<Option<Doom>> = OnceLock::new();
static PASSED: AtomicU64 = AtomicU64::new(0);

/// Dies here, if the environment says so.
pub fn point(name: &str) {
    let doom = DOOM.get_or_init(|| {
        let elsewhere = std::env::var_os(CRASH_IN).is_some();
        std::env::var_os(CRASH_AT).filter(|_| !elsewhere).and_then(|at| Doom::parse(&at))
    });
    if let Some(doom) = doom
        && doom.name == name
        && PASSED.fetch_add(1, Ordering::Relaxed) + 1 == doom.passing
    {
        die();
    }
}

/// What the worker of `stage` gets as [`CRASH_AT`], if it is among those whose points count.
pub fn for_worker(stage: &str) -> Option<OsString> {
    let whose = std::env::var_os(CRASH_IN)?;
    concerns(&whose, stage).then(|| std::env::var_os(CRASH_AT))?
}

fn concerns(whose: &OsStr, stage: &str) -> bool {
    whose
        .to_str()
        .and_then(|whose| whose.strip_prefix("worker"))
        .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(':') == Some(stage))
}

impl Doom {
    fn parse(at: &OsStr) -> Option<Self> {
        let at = at.to_str()?;
        let (name, passing) = match at.split_once(':') {
            Some((name, passing)) => (name, passing.parse().ok()?),
            None => (at, 1),
        };
        Some(Self { name: name.to_owned(), passing })
    }
}

fn die() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    // The signal ends the process before the call above returns.
    std::process::abort()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_named_with_or_without_the_passing() {
        let doom = |name: &str, passing| Some(Doom { name: name.to_owned(), passing });
        assert_eq!(Doom::parse(OsStr::new("record.before")), doom("record.before", 1));
        assert_eq!(Doom::parse(OsStr::new("record.before:12")), doom("record.before", 12));
        assert_eq!(Doom::parse(OsStr::new("record.before:twice")), None);
    }

    #[test]
    fn all_workers_are_meant_or_those_of_one_stage() {
        assert!(concerns(OsStr::new("worker"), "a"));
        assert!(concerns(OsStr::new("worker:a"), "a"));
        assert!(!concerns(OsStr::new("worker:a"), "b"));
        assert!(!concerns(OsStr::new("workers"), "a"));
        assert!(!concerns(OsStr::new("scheduler"), "a"));
    }
}
