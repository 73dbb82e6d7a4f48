//! Ends processes that a dead run left behind, so that nothing writes beside its successor and nobody waits for it.
//!
//! A worker asks the kernel to die with its scheduler. What it started itself may live on: a grandchild, or a program
//! that takes the request back. Those are found in `/proc` by what only they can have: the open file of the lock, or
//! the temporary folder of the attempt in their environment. Processes of other hosts, containers and users are never
//! touched.

use std::{
    fs::{self, File, Metadata},
    io,
    os::unix::{ffi::OsStrExt, fs::MetadataExt},
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    process::{Pid, PidfdFlags, Signal, getpgid, getpgrp, getpid, kill_process, kill_process_group, pidfd_open},
};

use super::Holder;

/// As fdinfo shows it.
const CLOSE_ON_EXEC: u32 = 0o2_000_000;

/// How long a killed process may take to be gone: it may have much memory to give back.
const PATIENCE: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };

/// Ends whoever inherited the lock `file` from `holder`, if that process is dead and was of this host. `reread` tells
/// again who took the lock. Says whether somebody was ended.
pub(super) fn end_heirs(file: &File, holder: &Holder, reread: impl FnOnce() -> Option<Holder>) -> bool {
    let Ok(lock) = file.metadata() else { return false };
    if holder.host != Holder::this_host() || !has_given_up(holder.pid, &lock) {
        return false;
    }
    let heirs: Vec<Pid> = others().filter(|&pid| inherited(pid, &lock)).collect();
    // Whoever took the lock since has said so before starting a worker: then these are its workers.
    if heirs.is_empty() || reread().as_ref() != Some(holder) {
        return false;
    }
    heirs.into_iter().for_each(end);
    true
}

/// Ends the processes whose temporary files go below `scratch`, which nobody works in any more.
pub(super) fn end_users(scratch: &Path) {
    let mut wanted = b"TMPDIR=".to_vec();
    wanted.extend(scratch.as_os_str().as_bytes());
    wanted.push(b'/');
    let uses = |pid: &Pid| {
        let environment = fs::read(of(*pid).join("environ")).unwrap_or_default();
        environment.split(|&byte| byte == 0).any(|variable| variable.starts_with(&wanted)) && is_of_this_container(*pid)
    };
    others().filter(uses).for_each(end);
}

/// Whether a process that took the lock is gone, or has the number of one that is. One that cannot be looked into lives.
fn has_given_up(pid: u32, lock: &Metadata) -> bool {
    let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return false };
    match fs::read_to_string(of(pid).join("stat")) {
        // The state stands behind the name, which may be anything.
        Ok(stat) if stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])) => true,
        Ok(_) => matches!(descriptor(pid, lock), Ok(None)),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Whether a process was handed the lock: its descriptor stays open when it starts a program, a scheduler's does not.
fn inherited(pid: Pid, lock: &Metadata) -> bool {
    let Ok(Some(information)) = descriptor(pid, lock) else { return false };
    let flags = information.lines().find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
    flags.is_some_and(|flags| flags & CLOSE_ON_EXEC == 0) && is_of_this_container(pid)
}

/// What the kernel tells of the descriptor through which a process has the lock, if it has one.
fn descriptor(pid: Pid, lock: &Metadata) -> io::Result<Option<String>> {
    for entry in fs::read_dir(of(pid).join("fd"))? {
        let entry = entry?;
        let is_lock = |file: Metadata| (file.dev(), file.ino()) == (lock.dev(), lock.ino());
        if fs::metadata(entry.path()).is_ok_and(is_lock) {
            let information = fs::read_to_string(of(pid).join("fdinfo").join(entry.file_name()))?;
            // Whoever only waits for the lock has its file open too.
            if information.lines().any(|line| line.starts_with("lock:")) {
                return Ok(Some(information));
            }
        }
    }
    Ok(None)
}

fn others() -> impl Iterator<Item = Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| Pid::from_raw(entry.ok()?.file_name().to_str()?.parse().ok()?));
    pids.filter(|&pid| pid != getpid())
}

/// In another one, the numbers of processes mean something else.
fn is_of_this_container(pid: Pid) -> bool {
    let namespace = |folder: PathBuf| fs::read_link(folder.join("ns/pid")).ok();
    namespace(of(pid)).is_some_and(|theirs| namespace("/proc/self".into()) == Some(theirs))
}

fn of(pid: Pid) -> PathBuf {
    Path::new("/proc").join(pid.as_raw_nonzero().to_string())
}

/// Kills a process and its group, as every worker leads one of its own, and waits until it is gone.
fn end(pid: Pid) {
    tracing::warn!(pid = pid.as_raw_nonzero(), "a process that a dead run left behind is killed");
    let watch = pidfd_open(pid, PidfdFlags::empty());
    if let Ok(group) = getpgid(Some(pid))
        && group != getpgrp()
    {
        let _ = kill_process_group(group, Signal::KILL);
    }
    let _ = kill_process(pid, Signal::KILL);
    if let Ok(watch) = watch {
        let _ = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&PATIENCE));
    }
}
