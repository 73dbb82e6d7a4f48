//! Ctrl-C and termination: the first asks the run to stop, the second kills its workers, the third ends the program.

use std::{io, sync::mpsc::SyncSender};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator::{Handle, Signals},
};

use super::Message;

/// From this one on, nobody waits for the event loop any more: it may be busy hashing.
const LAST: usize = 3;

/// Listens for signals as long as it is there.
pub(super) struct SignalWatch {
    handle: Handle,
}

impl SignalWatch {
    pub(super) fn start(messages: SyncSender<Message>) -> io::Result<Self> {
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            for (count, _signal) in (1..).zip(signals.forever()) {
                if count >= LAST {
                    // Workers are killed by the kernel as their parent ends; their checkpoints stay.
                    std::process::exit(1);
                }
                // A full channel is drained by the loop; a closed one means that the run is over.
                if messages.send(Message::Signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { handle })
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        // The thread ends by itself.
        self.handle.close();
    }
}
