//! Processes that a worker leaves behind when it ends.
//!
//! The scheduler asks the kernel to be given what the descendants of its workers leave orphaned (it is their
//! "subreaper"), wherever they moved to: another process group, another session. So a child of this process that is no
//! worker is such an orphan, and whatever it was to do, nobody waits for it any more. It is killed, because it may keep
//! a worker's output open, or write beside the next worker.

use std::{
    fs,
    sync::{Mutex, MutexGuard, PoisonError},
};

use rustix::process::{Pid, Signal, WaitOptions, getpid, kill_process, set_child_subreaper, waitpid};

/// The workers that were started and not yet waited for. One list a process, as the kernel has one list of children.
static WORKERS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// From now on, orphaned descendants become children of this process. Without it, only a worker's process group is
/// ended with the worker.
pub(super) fn adopt() {
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::debug!(%error, "what workers leave behind cannot be adopted");
    }
}

/// The workers. Whoever starts one holds the list until the new one is in it.
pub(super) fn workers() -> MutexGuard<'static, Vec<Pid>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Forgets a worker that was waited for, ends what it left, and says how many processes those were.
pub(super) fn end_after(worker: Pid) -> usize {
    workers().retain(|&other| other != worker);
    let mut ended = 0;
    loop {
        let strays = {
            let workers = workers();
            let strays: Vec<Pid> = children().into_iter().filter(|child| !workers.contains(child)).collect();
            for &stray in &strays {
                let _ = kill_process(stray, Signal::KILL);
            }
            strays
        };
        if strays.is_empty() {
            return ended;
        }
        // Their own children come to us before they can be waited for.
        for stray in strays {
            if matches!(waitpid(Some(stray), WaitOptions::empty()), Ok(Some(_))) {
                ended += 1;
            }
        }
    }
}

/// The children of this process's first thread, to which orphans are given. None where the kernel does not tell.
fn children() -> Vec<Pid> {
    let pid = getpid().as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}
