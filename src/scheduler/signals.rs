//! Ctrl-C and termination: the first asks the run to stop, the second kills its workers, the third ends the program.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};

use super::mailbox::Bell;

/// From this one on, nobody waits for the event loop any more: it may be busy hashing.
const LAST: usize = 3;

/// Listens for signals as long as it is there.
pub(super) struct SignalWatch {
    handle: Handle,
    count: Arc<AtomicUsize>,
}

impl SignalWatch {
    /// Rings `bell` at each signal.
    pub(super) fn start(bell: Bell) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
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
        Ok(Self { handle, count })
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
