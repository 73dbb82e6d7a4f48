//! `pipe` processes under test: started, listened to, killed, waited for, but never for ever.

use std::{
    io::{self, BufRead, BufReader},
    os::unix::process::ExitStatusExt,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, Receiver},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pipe_stage::crash::{CRASH_AT, CRASH_IN};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::Failure;

/// A run that takes longer hangs: undisturbed it takes about a second.
const LONGEST: Duration = Duration::from_secs(120);

/// How often a process is asked whether it has ended.
const NAP: Duration = Duration::from_millis(2);

/// A `pipe run` that goes on.
pub(crate) struct Process {
    child: Child,
    listener: JoinHandle<Vec<Value>>,
    heard: Receiver<()>,
}

/// One that has ended.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    pub(crate) events: Vec<Value>,
}

impl Process {
    /// Runs the pipeline in `folder`. `crash` names a point, with the number of the passing, and whose it is.
    pub(crate) fn start(program: &Path, folder: &Path, crash: Option<(&str, Option<&str>)>) -> io::Result<Self> {
        let errors = std::fs::File::options().create(true).append(true).open(folder.join("errors"))?;
        let mut command = Command::new(program);
        command
            .args(["run", "pipeline.yaml", "--jobs", "4"])
            .current_dir(folder)
            .env("PIPE_HOME", folder.join("home"))
            .env_remove(CRASH_AT)
            .env_remove(CRASH_IN)
            .stdout(Stdio::piped())
            .stderr(errors);
        if let Some((at, whose)) = crash {
            command.env(CRASH_AT, at).envs(whose.map(|whose| (CRASH_IN, whose)));
        }
        let mut child = command.spawn()?;
        let stdout = child.stdout.take().ok_or_else(|| io::Error::other("the output was taken"))?;
        let (sender, heard) = mpsc::channel();
        let listener = thread::spawn(move || {
            let mut events = Vec::new();
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // The last line of a killed process may be half of one.
                if let Ok(event) = serde_json::from_str(&line) {
                    events.push(event);
                    // Nobody need count them.
                    let _ = sender.send(());
                }
            }
            events
        });
        Ok(Self { child, listener, heard })
    }

    /// Returns when the process has told of so many events, or has ended.
    pub(crate) fn wait_for_events(&self, count: u64) {
        for _ in 0..count {
            if self.heard.recv_timeout(LONGEST).is_err() {
                return;
            }
        }
    }

    /// Kills it, and nothing else.
    pub(crate) fn kill(&self) {
        // It may have ended already.
        let _ = kill_process(Pid::from_child(&self.child), Signal::KILL);
    }

    /// Its workers, as far as they live.
    pub(crate) fn workers(&self) -> Vec<Pid> {
        let pid = self.child.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
    }

    /// Waits for its end.
    pub(crate) fn finish(mut self) -> Result<Ended, Failure> {
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if begun.elapsed() > LONGEST {
                self.kill();
                self.child.wait()?;
                return Err(Failure::Broken(format!("a run still hung after {} s", LONGEST.as_secs())));
            }
            thread::sleep(NAP);
        };
        let events = self.listener.join().map_err(|_| io::Error::other("the listener of a process failed"))?;
        Ok(Ended { status, events })
    }
}

impl Ended {
    /// Whether it was killed, by us or at a crash point.
    pub(crate) fn was_killed(&self) -> bool {
        self.status.signal() == Some(Signal::KILL.as_raw())
    }

    /// The stages whose events are called `name`.
    pub(crate) fn stages<'ended>(&'ended self, name: &'ended str) -> impl Iterator<Item = &'ended str> {
        self.events.iter().filter(move |event| event["event"] == name).filter_map(|event| event["stage"].as_str())
    }
}
