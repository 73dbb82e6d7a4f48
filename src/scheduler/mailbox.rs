//! How other threads reach the event loop: they leave a message and ring a bell that the loop waits for, beside the
//! descriptors of its workers.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc,
        mpsc::{self, Receiver, Sender},
    },
};

use rustix::event::{EventfdFlags, eventfd};

/// Wakes the event loop. Ringing never blocks, and once is as good as often.
#[derive(Debug, Clone)]
pub(super) struct Bell(Arc<OwnedFd>);

impl Bell {
    fn new() -> io::Result<Self> {
        Ok(Self(Arc::new(eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?)))
    }

    pub(super) fn ring(&self) {
        // Fails only if it has been rung 2^64 times and nobody looked.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Forgets that it was rung.
    fn silence(&self) {
        let _ = rustix::io::read(&self.0, &mut [0u8; 8]);
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Where the event loop finds what other threads have to say.
#[derive(Debug)]
pub(super) struct Mailbox<M> {
    messages: Receiver<M>,
    post: Post<M>,
}

/// Leaves messages in a [`Mailbox`].
#[derive(Debug)]
pub(super) struct Post<M> {
    sender: Sender<M>,
    bell: Bell,
}

impl<M> Mailbox<M> {
    pub(super) fn new() -> io::Result<Self> {
        let (sender, messages) = mpsc::channel();
        Ok(Self { messages, post: Post { sender, bell: Bell::new()? } })
    }

    pub(super) fn post(&self) -> Post<M> {
        self.post.clone()
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.post.bell
    }

    /// Everything that has been left so far.
    pub(super) fn empty(&self) -> Vec<M> {
        // First, so that what comes after the last look rings again.
        self.post.bell.silence();
        self.messages.try_iter().collect()
    }
}

impl<M> Post<M> {
    pub(super) fn leave(&self, message: M) {
        // Nobody is there to read it only once the run is over.
        let _ = self.sender.send(message);
        self.bell.ring();
    }
}

impl<M> Clone for Post<M> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), bell: self.bell.clone() }
    }
}
