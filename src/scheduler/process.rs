//! One worker process: started on its job, listened to, stopped, reaped. Nothing here waits: the event loop does, for
//! all workers at once.
//!
//! A worker is the leader of its own process group, so that Ctrl-C in a terminal reaches only the scheduler and a
//! signal from the scheduler reaches everything that the worker started. It asks the kernel to die with its parent,
//! which means the thread that spawned it: [`Worker::spawn`] is called on the scheduler's own thread, which outlives
//! all workers.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::process::{CommandExt, ExitStatusExt},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
};

use pipe_stage::{Event, WORKER_SUBCOMMAND};
use rustix::{
    fs::{OFlags, fcntl_setfl},
    io::{FdFlags, fcntl_setfd},
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, kill_process_group, pidfd_open, waitid},
};

use super::{environment, lines::Lines, slots::Grant, strays};
use crate::cache::Attempt;

/// At most this much is read from a worker in one go, in bytes; then others have their turn.
pub(super) const PIECE_BYTES: usize = 64 * 1024;

/// What is left in the pipe of a worker that has ended is read up to here, in bytes. A pipe holds less; only a process
/// that fled from the worker's group goes on writing.
const LAST_BYTES: usize = 1 << 20;

/// Of a line that is no event, this much is kept, in bytes.
const NOISE_BYTES: usize = 1600;

/// What a worker says.
#[derive(Debug)]
pub(super) enum Said<'a> {
    /// A line of the protocol.
    Event(Event),
    /// A line on standard output that is none, or the beginning of it.
    Noise(&'a [u8]),
    /// The next bytes of its standard error.
    Raw(&'a [u8]),
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error("cannot start the worker program {}", program.display())]
    Program { program: PathBuf, source: io::Error },
    #[error("cannot set up the worker's streams and lock")]
    Plumbing(#[from] io::Error),
}

/// What a worker is started with.
pub(super) struct Launch<'a> {
    pub(super) program: &'a Path,
    /// The stage's name.
    pub(super) stage: &'a str,
    /// Of the environment it sees these variables beside what every worker sees.
    pub(super) variables: &'a [String],
    /// And these, which its kind needs.
    pub(super) surroundings: &'a [&'a str],
    /// The job description, to be read from here.
    pub(super) job: File,
    /// It keeps the attempt's lock as long as it lives, also if the scheduler dies first: the next run waits until it
    /// is gone.
    pub(super) attempt: &'a Attempt,
    /// The locks of its GPUs it keeps likewise.
    pub(super) grant: &'a Grant,
}

/// A worker that runs, or has ended and not been reaped.
#[derive(Debug)]
pub(super) struct Worker {
    child: Child,
    group: Pid,
    /// Readable once the process has ended. `None` where the kernel has no such descriptors.
    end: Option<OwnedFd>,
    /// Until it is closed at the other end.
    output: Option<ChildStdout>,
    /// Its standard error, likewise.
    errors: Option<ChildStderr>,
    lines: Lines,
}

impl Worker {
    pub(super) fn spawn(launch: Launch<'_>) -> Result<Self, SpawnError> {
        let Launch { program, stage, variables, surroundings, job, attempt, grant } = launch;
        let mut command = Command::new(program);
        command
            .arg(WORKER_SUBCOMMAND)
            .stdin(job)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // No stage may depend on where the scheduler was started.
            .current_dir("/")
            .process_group(0);
        let named = surroundings.iter().copied().chain(variables.iter().map(String::as_str));
        environment::declare(&mut command, stage, named, &attempt.temporary());
        command.envs(grant.variables());

        // Workers are only spawned on this thread, so no other child inherits the descriptor in between.
        let inherited = || grant.locks().iter().map(AsFd::as_fd).chain([attempt.lock().as_fd()]);
        inherited().try_for_each(|lock| fcntl_setfd(lock, FdFlags::empty())).map_err(io::Error::from)?;
        let spawned = strays::born(&attempt.temporary(), || command.spawn());
        inherited().try_for_each(|lock| fcntl_setfd(lock, FdFlags::CLOEXEC)).map_err(io::Error::from)?;
        let mut child = spawned.map_err(|source| SpawnError::Program { program: program.to_owned(), source })?;

        let group = Pid::from_child(&child);
        let (output, errors) = (child.stdout.take(), child.stderr.take());
        let end = pidfd_open(group, PidfdFlags::empty()).ok();
        let worker = Self { child, group, end, output, errors, lines: Lines::default() };
        for stream in worker.streams() {
            if let Err(error) = fcntl_setfl(stream, OFlags::NONBLOCK) {
                worker.signal(Signal::KILL);
                return Err(io::Error::from(error).into());
            }
        }
        Ok(worker)
    }

    /// Sends a signal to the worker and to all that it started. Its number is its own until it is reaped.
    pub(super) fn signal(&self, signal: Signal) {
        let _ = kill_process_group(self.group, signal);
    }

    /// The descriptors that become readable when it has something to say, or ends.
    pub(super) fn watched(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.streams().chain(self.end.as_ref().map(AsFd::as_fd))
    }

    fn streams(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let output = self.output.as_ref().map(AsFd::as_fd);
        output.into_iter().chain(self.errors.as_ref().map(AsFd::as_fd))
    }

    /// Whether its end has to be asked for again and again.
    pub(super) fn ends_silently(&self) -> bool {
        self.end.is_none()
    }

    /// Reads what it has said since, but of each stream no more than fits into `piece`. Gives how much that was, in
    /// bytes.
    pub(super) fn listen(&mut self, piece: &mut [u8], mut heard: impl FnMut(Said<'_>)) -> usize {
        let mut all = 0;
        if let Some(read) = next(&mut self.errors, piece) {
            heard(Said::Raw(&piece[..read]));
            all += read;
        }
        if self.output.is_some() {
            match next(&mut self.output, piece) {
                Some(read) => {
                    self.lines.take(&piece[..read], |line| heard(understand(line)));
                    all += read;
                }
                None if self.output.is_none() => self.lines.end(|line| heard(understand(line))),
                None => {}
            }
        }
        all
    }

    /// Whether the process has ended. It stays a zombie until it is reaped, so that its number remains its own.
    pub(super) fn has_ended(&self) -> bool {
        let asked = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
        // An error means that it cannot be waited for: reaping will say so.
        !matches!(waitid(WaitId::Pid(self.group), asked), Ok(None))
    }

    /// Ends the group of a worker that has ended, and hears its last words.
    pub(super) fn reap(mut self, piece: &mut [u8], mut heard: impl FnMut(Said<'_>)) -> ExitStatus {
        self.signal(Signal::KILL);
        let mut last = 0;
        while last < LAST_BYTES {
            match self.listen(piece, &mut heard) {
                0 => break,
                read => last += read,
            }
        }
        self.lines.end(|line| heard(understand(line)));
        // Cannot fail for a child that nobody else waits for; if it does, that is no success.
        strays::buried(&mut self.child).unwrap_or_else(|_| ExitStatus::from_raw(1 << 8))
    }
}

/// Reads what a stream has, as far as it fits into `piece`; `None` if that is nothing now. A stream that has come to its
/// end is closed.
fn next(stream: &mut Option<impl Read>, piece: &mut [u8]) -> Option<usize> {
    match stream.as_mut()?.read(piece) {
        Ok(read) if read > 0 => Some(read),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => None,
        Ok(_) | Err(_) => {
            *stream = None;
            None
        }
    }
}

/// What a line of a worker says.
pub(super) fn understand(line: &[u8]) -> Said<'_> {
    match serde_json::from_slice(line) {
        Ok(event) => Said::Event(event),
        Err(_) => Said::Noise(&line[..line.len().min(NOISE_BYTES)]),
    }
}
