//! Ctrl-C, termination and the end of the terminal: the first asks the run to stop, the second kills its workers, the
//! third ends the program.
//!
//! Once no run listens any more, they do again what they do to any program.

use std::{
    fs,
    io::{self, ErrorKind},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    flag,
    iterator::{Handle, Signals},
};

use super::mailbox::Bell;

/// From this one on, nobody waits for the event loop any more: it may be busy hashing.
const LAST: usize = 3;

/// What this process does about signals. A handler of it stays once it is set, so it is set up once.
static PROCESS: Mutex<Option<Process>> = Mutex::new(None);

struct Process {
    /// The signals that are listened for.
    signals: Vec<i32>,
    /// How many runs listen.
    listeners: usize,
    /// Whether none does.
    unheard: Arc<AtomicBool>,
}

/// Listens for signals as long as it is there.
pub(super) struct SignalWatch {
    handle: Handle,
    count: Arc<AtomicUsize>,
    _listener: Listener,
}

impl SignalWatch {
    /// Rings `bell` at each signal.
    pub(super) fn start(bell: Bell) -> io::Result<Self> {
        let (listener, signals) = Listener::new()?;
        let mut signals = Signals::new(signals)?;
        let (handle, count) = (signals.handle(), Arc::new(AtomicUsize::new(0)));
        std::thread::Builder::new().name("signals".to_owned()).spawn({
            let count = Arc::clone(&count);
            move || {
                for _signal in signals.forever() {
                    if count.fetch_add(1, Ordering::SeqCst) + 1 >= LAST {
                        // Workers are killed by the kernel as their parent ends; their checkpoints stay.
                        std::process::exit(1);
                    }
                    bell.ring();
                }
            }
        })?;
        Ok(Self { handle, count, _listener: listener })
    }

    /// How many signals have come.
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::SeqCst)
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        // The thread ends by itself.
        self.handle.close();
    }
}

/// One of those who listen.
struct Listener;

impl Listener {
    /// Gives the signals to listen for, too.
    fn new() -> io::Result<(Self, Vec<i32>)> {
        let mut process = PROCESS.lock().unwrap_or_else(PoisonError::into_inner);
        if process.is_none() {
            *process = Some(Process::set_up()?);
        }
        let process = process.as_mut().ok_or(ErrorKind::NotFound)?;
        process.listeners += 1;
        process.unheard.store(false, Ordering::SeqCst);
        Ok((Self, process.signals.clone()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(process) = &mut *PROCESS.lock().unwrap_or_else(PoisonError::into_inner) {
            process.listeners -= 1;
            process.unheard.store(process.listeners == 0, Ordering::SeqCst);
        }
    }
}

impl Process {
    fn set_up() -> io::Result<Self> {
        let mut signals = vec![SIGINT, SIGTERM];
        // `nohup pipe run` is to go on without its terminal.
        if !is_ignored(SIGHUP) {
            signals.push(SIGHUP);
        }
        let unheard = Arc::new(AtomicBool::new(false));
        for &signal in &signals {
            flag::register_conditional_default(signal, Arc::clone(&unheard))?;
        }
        Ok(Self { signals, listeners: 0, unheard })
    }
}

/// Whether whoever started this process had it ignore a signal.
fn is_ignored(signal: i32) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    ignored.is_some_and(|ignored| ignored >> (signal - 1) & 1 == 1)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use std::{
        os::unix::process::ExitStatusExt,
        process::{Command, ExitStatus},
        time::{Duration, Instant},
    };

    use rustix::process::{Signal, getpid, kill_process};

    use super::*;
    use crate::scheduler::mailbox::Mailbox;

    /// Set for the process in which signals are sent.
    const ROLE: &str = "PIPE_TEST_SIGNALS";

    /// Runs a test of this binary in a process of its own, started by a shell after `before`.
    fn alone(test: &str, before: &str) -> ExitStatus {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("{before} exec \"$0\" --exact \"$1\"")]);
        command.arg(std::env::current_exe().unwrap()).arg(format!("scheduler::signals::tests::{test}"));
        command.env(ROLE, "1").output().unwrap().status
    }

    fn is_alone() -> bool {
        std::env::var_os(ROLE).is_some()
    }

    /// Sends a signal to this process. Says whether it was heard.
    fn hears(watch: &SignalWatch, signal: Signal) -> bool {
        let (before, begin) = (watch.count(), Instant::now());
        kill_process(getpid(), signal).unwrap();
        while watch.count() == before {
            if begin.elapsed() > Duration::from_secs(2) {
                return false;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        true
    }

    fn watch() -> SignalWatch {
        SignalWatch::start(Mailbox::<()>::new().unwrap().bell().clone()).unwrap()
    }

    #[test]
    fn after_the_last_run_a_signal_ends_the_program() {
        if is_alone() {
            // All the tests may have been started under nohup.
            let heard = [Signal::TERM, Signal::INT].into_iter().chain((!is_ignored(SIGHUP)).then_some(Signal::HUP));
            for signal in heard {
                assert!(hears(&watch(), signal), "{signal:?}");
            }
            kill_process(getpid(), Signal::TERM).unwrap();
            return std::thread::sleep(Duration::from_secs(10));
        }
        assert_eq!(alone("after_the_last_run_a_signal_ends_the_program", "").signal(), Some(15));
    }

    #[test]
    fn under_nohup_a_run_outlives_its_terminal() {
        if is_alone() {
            let watch = watch();
            assert!(!hears(&watch, Signal::HUP));
            assert!(hears(&watch, Signal::TERM));
            return;
        }
        assert!(alone("under_nohup_a_run_outlives_its_terminal", "trap '' HUP;").success());
    }
}
