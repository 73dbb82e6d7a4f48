//! Keeping what workers made, beside the event loop: a large artifact takes long to hash, and a disk long to be sure.
//!
//! Outputs are hashed on the threads of the pool, each stage by itself. One thread then keeps the stages that are ready
//! as a group, so that they wait for the disk together; while it waits, the next group gathers.

use std::{
    path::PathBuf,
    sync::mpsc::{self, Receiver, Sender, SyncSender},
    thread::{self, JoinHandle},
};

use super::{Message, active::cache_failed, ending::Ending};
use crate::cache::{self, ActionRecord, Attempt, CacheError, Home, Store, Unkept, crash};

/// So many stages wait for the disk together at most.
const GROUP: usize = 64;

/// More than this is synced before the stage joins a group, so that small stages need not wait for it, in bytes.
const LARGE_BYTES: u64 = 8 << 20;

/// A stage whose worker has ended well.
pub(super) struct Finished {
    /// Its outputs by name, and the folders that they were written to.
    pub(super) outputs: Vec<(String, PathBuf)>,
    /// Its record, with the outputs left out.
    pub(super) record: ActionRecord,
    /// Holds the key until the record is in place.
    pub(super) attempt: Attempt,
}

/// Keeps what stages made.
pub(super) struct Keeper {
    home: Home,
    ready: Option<Sender<Ready>>,
    messages: SyncSender<Message>,
    thread: Option<JoinHandle<()>>,
}

struct Ready {
    stage: usize,
    unkept: Unkept,
    attempt: Attempt,
}

impl Keeper {
    pub(super) fn new(home: &Home, messages: SyncSender<Message>) -> Self {
        Self { home: home.clone(), ready: None, messages, thread: None }
    }

    /// Takes over a stage. [`Message::Kept`] tells what became of it.
    pub(super) fn take(&mut self, stage: usize, finished: Finished) {
        let (store, ready, messages) = (Store::new(&self.home), self.ready(), self.messages.clone());
        rayon::spawn(move || match prepare(&store, finished) {
            Ok((unkept, attempt)) => drop(ready.send(Ready { stage, unkept, attempt })),
            Err(ending) => drop(messages.send(Message::Kept(stage, Err(ending)))),
        });
    }

    /// The way to the thread, which is started for the first stage: most runs have nothing to keep.
    fn ready(&mut self) -> Sender<Ready> {
        let (home, messages) = (&self.home, &self.messages);
        let thread = &mut self.thread;
        let ready = self.ready.get_or_insert_with(|| {
            let (sender, receiver) = mpsc::channel();
            let (home, messages) = (home.clone(), messages.clone());
            *thread = Some(thread::spawn(move || keep_groups(&home, &receiver, &messages)));
            sender
        });
        ready.clone()
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.ready = None;
        if let Some(thread) = self.thread.take() {
            // It ends once every stage that was taken over is kept.
            let _ = thread.join();
        }
    }
}

fn prepare(store: &Store, finished: Finished) -> Result<(Unkept, Attempt), Ending> {
    let Finished { outputs, record, attempt } = finished;
    let prepare = |(name, folder): (String, PathBuf)| {
        let prepared = store.prepare(&folder)?;
        if prepared.total_bytes() > LARGE_BYTES {
            prepared.sync()?;
        }
        Ok((name, prepared))
    };
    let outputs = outputs.into_iter().map(prepare).collect::<Result<_, CacheError>>().map_err(cache_failed)?;
    Ok((Unkept { outputs, record }, attempt))
}

fn keep_groups(home: &Home, ready: &Receiver<Ready>, messages: &SyncSender<Message>) {
    while let Ok(first) = ready.recv() {
        let mut stages = Vec::new();
        let mut group = Vec::new();
        for Ready { stage, unkept, attempt } in std::iter::once(first).chain(ready.try_iter()).take(GROUP) {
            stages.push((stage, attempt));
            group.push(unkept);
        }
        for ((stage, attempt), kept) in stages.into_iter().zip(cache::keep(home, group)) {
            if kept.is_ok() {
                crash::point("scheduler.recorded");
                attempt.succeed();
                crash::point("scheduler.cleared");
            }
            if messages.send(Message::Kept(stage, kept.map(Box::new).map_err(cache_failed))).is_err() {
                return; // the run has ended
            }
        }
    }
}
