//! One worker process: started, fed its job, listened to, stopped, waited for.
//!
//! A worker is the leader of its own process group, so that Ctrl-C in a terminal reaches only the scheduler and a
//! signal from the scheduler reaches everything that the worker started. It asks the kernel to die with its parent,
//! which means the thread that spawned it: [`Worker::spawn`] is called on the scheduler's own thread, which outlives
//! all workers.

use std::{
    fs::File,
    io::{self, BufReader, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, mpsc::SyncSender},
    thread,
};

use pipe_stage::{Event, Job, Level, WORKER_SUBCOMMAND};
use rustix::{
    io::{FdFlags, fcntl_setfd},
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use super::{Message, environment, lines, strays};
use crate::cache::Attempt;

/// What a worker's threads tell the scheduler.
#[derive(Debug)]
pub(super) enum Said {
    /// A line of the protocol.
    Event(Event),
    /// A line on standard output that is none.
    Noise(String),
    /// The process is gone, and everything it said has been passed on.
    Ended(ExitStatus),
}

/// Why a worker could not be started.
#[derive(Debug, thiserror::Error)]
pub(super) enum SpawnError {
    #[error("cannot start the worker program {}", program.display())]
    Program { program: PathBuf, source: io::Error },
    #[error("cannot describe the job")]
    Job(#[from] serde_json::Error),
    #[error("cannot set up the worker's log, lock or threads")]
    Plumbing(#[from] io::Error),
}

/// A running worker.
#[derive(Debug)]
pub(super) struct Worker {
    group: Pid,
    /// Whether the process was reaped: from then on its number may belong to someone else.
    reaped: Arc<Mutex<bool>>,
}

impl Worker {
    /// Starts `program` on `job`. What it says goes to `messages` under `stage`, and ends with [`Said::Ended`]; its
    /// standard error is appended to `log`. It keeps the attempt's
    /// lock as long as it lives, also if the scheduler dies first: the next run waits until it is gone.
    pub(super) fn spawn(
        program: &Path,
        job: &Job,
        log: &Path,
        attempt: &Attempt,
        messages: &SyncSender<Message>,
        stage: usize,
    ) -> Result<Self, SpawnError> {
        let text = serde_json::to_vec(job)?;
        let log = File::options().append(true).create(true).open(log)?;
        let mut command = Command::new(program);
        command
            .arg(WORKER_SUBCOMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            // No stage may depend on where the scheduler was started.
            .current_dir("/")
            .process_group(0);
        environment::declare(&mut command, &job.stage, &attempt.temporary());

        // Workers are only spawned on this thread, so no other child inherits the descriptor in between.
        fcntl_setfd(attempt.lock(), FdFlags::empty()).map_err(io::Error::from)?;
        let spawned = {
            let mut workers = strays::workers();
            command.spawn().inspect(|child| workers.push(Pid::from_child(child)))
        };
        fcntl_setfd(attempt.lock(), FdFlags::CLOEXEC).map_err(io::Error::from)?;
        let mut child = spawned.map_err(|source| SpawnError::Program { program: program.to_owned(), source })?;

        let worker = Self { group: Pid::from_child(&child), reaped: Arc::default() };
        let threads = match (child.stdin.take(), child.stdout.take()) {
            (Some(stdin), Some(stdout)) => worker.start_threads(child, stdin, stdout, text, messages, stage),
            _ => Err(io::Error::other("the worker has no standard streams")),
        };
        // Without its threads nobody would wait for it.
        threads.inspect_err(|_| worker.signal(Signal::KILL))?;
        Ok(worker)
    }

    /// Sends a signal to the worker and to all that it started. Nothing happens if it is gone.
    pub(super) fn signal(&self, signal: Signal) {
        let reaped = self.reaped.lock().unwrap_or_else(PoisonError::into_inner);
        if !*reaped {
            let _ = kill_process_group(self.group, signal);
        }
    }

    fn start_threads(
        &self,
        child: Child,
        mut stdin: ChildStdin,
        stdout: ChildStdout,
        job: Vec<u8>,
        messages: &SyncSender<Message>,
        stage: usize,
    ) -> io::Result<()> {
        let builder = |name: &str| thread::Builder::new().name(format!("{name} of worker {}", child.id()));
        // A worker that ends before it has read its job says why in another way.
        let feeder = builder("input").spawn(move || drop(stdin.write_all(&job)))?;
        let listener = builder("output").spawn({
            let messages = messages.clone();
            move || listen(stdout, &messages, stage)
        })?;
        let (group, reaped, messages) = (self.group, Arc::clone(&self.reaped), messages.clone());
        builder("end").spawn(move || {
            let status = wait(child, group, &reaped);
            let left = strays::end_after(group);
            if left > 0 {
                let message = format!(
                    "its worker left {left} {} behind: killed",
                    if left == 1 { "process" } else { "processes" }
                );
                let said = Said::Event(Event::Log { level: Level::Warn, message });
                let _ = messages.send(Message::Worker(stage, said));
            }
            // All that could write to them is gone, so the pipes have ended.
            let _ = feeder.join();
            let _ = listener.join();
            let _ = messages.send(Message::Worker(stage, Said::Ended(status)));
        })?;
        Ok(())
    }
}

/// Passes on every line until the stream ends.
fn listen(stdout: ChildStdout, messages: &SyncSender<Message>, stage: usize) {
    let mut stdout = BufReader::new(stdout);
    let mut line = Vec::new();
    while let Ok(true) = lines::next_line(&mut stdout, &mut line) {
        if messages.send(Message::Worker(stage, understand(&line))).is_err() {
            return; // the scheduler has ended
        }
    }
}

/// What a line of a worker says.
pub(super) fn understand(line: &[u8]) -> Said {
    match serde_json::from_slice(line) {
        Ok(event) => Said::Event(event),
        Err(_) => Said::Noise(String::from_utf8_lossy(line).into_owned()),
    }
}

/// Waits for the end of the worker, and ends what it left behind.
fn wait(mut child: Child, group: Pid, reaped: &Mutex<bool>) -> ExitStatus {
    // First without reaping: as long as the zombie is there, the number of the group is ours.
    let ended = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    let _ = rustix::io::retry_on_intr(|| waitid(WaitId::Pid(group), ended));
    let mut reaped = reaped.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = kill_process_group(group, Signal::KILL);
    *reaped = true;
    // Cannot fail for a child that nobody else waits for; if it does, that is no success.
    child.wait().unwrap_or_else(|_| ExitStatus::from_raw(1 << 8))
}
