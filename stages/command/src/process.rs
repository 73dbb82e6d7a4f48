//! One command from its start to its end, and the end of all that it started.
//!
//! A worker asks the kernel to be killed when the scheduler dies, but what a killed process has started lives on. So
//! while a command runs, this worker stays alive to end it: it takes that request back and watches the scheduler itself.
//! It also asks to be given what the command leaves orphaned, wherever that went.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::process::ExitStatusExt},
    process::{self, ExitStatus, Stdio},
};

use pipe_stage::{Context, Failure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{
        Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, getppid, kill_process, pidfd_open, set_child_subreaper,
        set_parent_process_death_signal, waitid,
    },
};

use crate::{config::Config, environment, error::Error, program};

/// How often a stopped command's children are looked for.
const STOPPING: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// Runs the command to its end. Its output goes to the stage's log.
pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let mut command = program::command(config, context.work(), &environment::of(config, context))?;
    let name = config.run.to_string();
    let watch = |source: io::Error| Error::Watch { command: name.clone(), source };
    let scheduler = Scheduler::watch().map_err(watch)?;
    if context.cancelled() {
        return Err(Failure::cancelled());
    }
    let mut child = match command.stdin(Stdio::null()).stdout(io::stderr()).spawn() {
        Ok(child) => child,
        Err(source) => {
            let hint = start_hint(&source);
            let program = command.get_program().to_string_lossy().into_owned();
            return Err(Failure::from(Error::Start { program, source }).hint(hint));
        }
    };
    let ended = pidfd_open(Pid::from_child(&child), PidfdFlags::empty()).map_err(|errno| watch(errno.into()))?;
    if context.cancelled() {
        // The request may have come before the command was there to get it.
        let _ = kill_process(Pid::from_child(&child), Signal::TERM);
    }
    scheduler.until(&ended).map_err(watch)?;
    let status = child.wait().map_err(watch)?;
    let left = if context.cancelled() { scheduler.wait_for_children().map_err(watch)? } else { end_children() };
    scheduler.leave_to_kernel();
    if left > 0 {
        context.warn(format!("the command left {left} process{} behind: killed", if left == 1 { "" } else { "es" }));
    }
    if !status.success() && context.cancelled() {
        return Err(Failure::cancelled());
    }
    judge(&name, status, &format!("what it printed: `pipe log {}`", context.job().stage))
}

/// The process that started this one.
struct Scheduler(OwnedFd);

impl Scheduler {
    /// From here on, its end is for this process to notice.
    fn watch() -> io::Result<Self> {
        // Until the last line, the kernel ends this process with the scheduler: the number is the scheduler's.
        let parent = getppid().ok_or(io::ErrorKind::NotFound)?;
        let scheduler = Self(pidfd_open(parent, PidfdFlags::empty())?);
        set_child_subreaper(Some(getpid()))?;
        set_parent_process_death_signal(None)?;
        Ok(scheduler)
    }

    /// Waits until `process` is gone. If the scheduler goes first, everything ends here.
    fn until(&self, process: &OwnedFd) -> io::Result<()> {
        loop {
            let mut ends = [PollFd::new(process, PollFlags::IN), PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut ends, None) {
                Err(Errno::INTR) => continue,
                polled => polled?,
            };
            if !ends[1].revents().is_empty() {
                end_with_scheduler();
            }
            if !ends[0].revents().is_empty() {
                return Ok(());
            }
        }
    }

    /// Lets the children of a command that was asked to stop come to their end: the scheduler's patience limits this.
    fn wait_for_children(&self) -> io::Result<usize> {
        while has_children() {
            let mut end = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut end, Some(&STOPPING)) {
                Ok(0) | Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
                Ok(_) => end_with_scheduler(),
            }
        }
        Ok(0)
    }

    /// The command is gone: from here on, the kernel may end this process with the scheduler again.
    fn leave_to_kernel(self) {
        let _ = set_parent_process_death_signal(Some(Signal::KILL));
        let mut end = [PollFd::new(&self.0, PollFlags::IN)];
        if poll(&mut end, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).is_ok_and(|ended| ended > 0) {
            end_with_scheduler();
        }
    }
}

fn end_with_scheduler() -> ! {
    end_children();
    process::exit(1)
}

/// Takes note of children that have ended, and says whether there are others.
fn has_children() -> bool {
    loop {
        match waitid(WaitId::All, WaitIdOptions::EXITED | WaitIdOptions::NOHANG) {
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return true,
            Err(_) => return false,
        }
    }
}

/// Ends what the command left running, and says how many processes that were.
fn end_children() -> usize {
    let mut ended = 0;
    while has_children() {
        // Children of these come to this process when they are gone.
        let children = children();
        if children.is_empty() {
            // The kernel does not tell: they are left to the scheduler, which ends the process group.
            break;
        }
        for child in children {
            let _ = kill_process(child, Signal::KILL);
            let wait = || waitid(WaitId::Pid(child), WaitIdOptions::EXITED);
            if let Ok(Some(_)) = rustix::io::retry_on_intr(wait) {
                ended += 1;
            }
        }
    }
    ended
}

/// The children of this process, as far as the kernel tells.
fn children() -> Vec<Pid> {
    let threads = fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let texts = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let text: String = texts.collect();
    text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

fn start_hint(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::ACCESS) => "make it executable: `chmod +x`",
        Some(Errno::NOEXEC) => "let it begin with a line such as `#!/bin/sh`, or start it by its interpreter",
        Some(Errno::NOENT) => "see whether the interpreter of its first line (`#!`) is on this machine",
        Some(Errno::TOOBIG) => "put long arguments into a file",
        _ => "try it by hand",
    }
}

/// `otherwise` is the hint where the status says nothing more.
fn judge(command: &str, status: ExitStatus, otherwise: &str) -> Result<(), Failure> {
    let command = command.to_owned();
    let (error, hint) = match (status.code(), status.signal()) {
        (Some(0), _) => return Ok(()),
        (Some(status), _) => (Error::Status { command, status }, status_hint(status)),
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            let name = signal_name(signal);
            (Error::Signal { command, signal, name }, signal_hint(signal).map(str::to_owned))
        }
    };
    Err(Failure::from(error).hint(hint.unwrap_or_else(|| otherwise.to_owned())))
}

fn status_hint(status: i32) -> Option<String> {
    match status {
        126 => Some("126 says that a program is not executable: `chmod +x`, or start it by its interpreter".to_owned()),
        127 => Some(
            "127 says that a program was not found: see whether it is in PATH, or name it under `scripts`".to_owned(),
        ),
        129..=192 => {
            let (signal, name) = (status - 128, signal_name(status - 128));
            let hint = signal_hint(signal).map(|hint| format!(": {hint}")).unwrap_or_default();
            Some(format!("{status} says that a program was killed by signal {signal}{name}{hint}"))
        }
        _ => None,
    }
}

fn signal_hint(signal: i32) -> Option<&'static str> {
    match signal {
        9 => Some(
            "if nobody killed it, the machine most likely ran out of memory: see `dmesg`, and give it less to do at a time",
        ),
        13 => Some("it wrote to a program that had ended, such as `head`"),
        _ => None,
    }
}

fn signal_name(signal: i32) -> &'static str {
    match signal {
        1 => " (SIGHUP)",
        2 => " (SIGINT)",
        3 => " (SIGQUIT)",
        4 => " (SIGILL)",
        6 => " (SIGABRT)",
        7 => " (SIGBUS)",
        8 => " (SIGFPE)",
        9 => " (SIGKILL)",
        11 => " (SIGSEGV)",
        13 => " (SIGPIPE)",
        14 => " (SIGALRM)",
        15 => " (SIGTERM)",
        24 => " (SIGXCPU)",
        25 => " (SIGXFSZ)",
        _ => "",
    }
}
