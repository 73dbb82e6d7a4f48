//! Processes that a worker leaves behind when it ends.
//!
//! The scheduler asks the kernel to be given what the descendants of its workers leave orphaned (it is their
//! "subreaper"), wherever they moved to: another process group, another session. So a child of this process that is no
//! worker is such an orphan, unless it was one before the first worker was: `tensorboard & exec pipe run` leaves `pipe` a
//! child that is none of its business. Once its worker has ended, nobody waits for whatever an orphan was to do any more.
//! It is killed, because it may keep a worker's output open, or write beside the next worker.

use std::{
    ffi::OsString,
    fs,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Child, ExitStatus},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
};

use rustix::process::{Pid, Signal, WaitOptions, getpgid, getpid, kill_process, set_child_subreaper, waitpid};

use super::environment::TEMPORARY;

/// The workers that were started and not yet waited for. One list a process, as the kernel has one list of children.
static WORKERS: Mutex<Vec<Worker>> = Mutex::new(Vec::new());

/// The children that this process had before it started any worker: those of the program that it was before. As they are
/// not waited for, no other process gets their numbers.
static INHERITED: OnceLock<Vec<Pid>> = OnceLock::new();

struct Worker {
    /// Its own number, and that of its process group.
    pid: Pid,
    /// What stands in the environment of all that it starts and of nobody else, unless they change it.
    mark: OsString,
}

/// From now on, orphaned descendants become children of this process. Without it, only a worker's process group is
/// ended with the worker.
pub(super) fn adopt() {
    INHERITED.get_or_init(children);
    if let Err(error) = set_child_subreaper(Some(getpid())) {
        tracing::debug!(%error, "what workers leave behind cannot be adopted");
    }
}

/// Starts a worker whose folder for temporary files is `temporary`.
pub(super) fn born<E>(temporary: &Path, spawn: impl FnOnce() -> Result<Child, E>) -> Result<Child, E> {
    // Nobody may look at the children before the new one is in the list.
    let mut workers = workers();
    let child = spawn()?;
    let mut mark = OsString::from(TEMPORARY);
    mark.push("=");
    mark.push(temporary);
    workers.push(Worker { pid: Pid::from_child(&child), mark });
    Ok(child)
}

/// Waits for a worker, which has ended.
pub(super) fn buried(child: &mut Child) -> std::io::Result<ExitStatus> {
    let pid = Pid::from_child(child);
    // From here on another process may get its number: it must not stand in the list any more.
    let mut workers = workers();
    let status = child.wait();
    workers.retain(|worker| worker.pid != pid);
    status
}

/// Ends what workers that are gone have left, and says how many processes those were.
pub(super) fn end_all() -> usize {
    let mut ended = 0;
    loop {
        let strays = {
            let workers = workers();
            let inherited = INHERITED.get().map_or(&[][..], Vec::as_slice);
            let is_stray = |child: &Pid| !inherited.contains(child) && !is_of_any(*child, &workers);
            let strays: Vec<Pid> = children().into_iter().filter(is_stray).collect();
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

/// Whether a child is one of the workers, or was started by one: then it may still be at work for it.
fn is_of_any(child: Pid, workers: &[Worker]) -> bool {
    if workers.iter().any(|worker| worker.pid == child) {
        return true;
    }
    if workers.is_empty() {
        return false;
    }
    let group = getpgid(Some(child)).ok();
    let environment = fs::read(format!("/proc/{}/environ", child.as_raw_nonzero())).unwrap_or_default();
    let variables: Vec<&[u8]> = environment.split(|byte| *byte == 0).collect();
    workers.iter().any(|worker| group == Some(worker.pid) || variables.contains(&worker.mark.as_bytes()))
}

fn workers() -> MutexGuard<'static, Vec<Worker>> {
    WORKERS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The children of this process's first thread, to which orphans are given. None where the kernel does not tell.
fn children() -> Vec<Pid> {
    let pid = getpid().as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}
