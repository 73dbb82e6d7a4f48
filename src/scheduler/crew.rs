//! The threads that do what could hold the event loop up: laying inputs out, hashing outputs, waiting for the disk.
//!
//! They start as there is work for them: a run in which nothing is to do starts none.

use std::{
    any::Any,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread::{Builder, Scope},
};

use super::mailbox::Post;

/// One piece of work, and what the event loop is to hear when it is done.
type Task<'env, M> = Box<dyn FnOnce() -> M + Send + 'env>;

/// What comes of a task.
pub(super) type Done<M> = Result<M, Box<dyn Any + Send>>;

/// A number of threads that live as long as the scope.
pub(super) struct Crew<'scope, 'env, M> {
    scope: &'scope Scope<'scope, 'env>,
    tasks: Sender<Task<'scope, M>>,
    waiting: Arc<Mutex<Receiver<Task<'scope, M>>>>,
    post: Post<Done<M>>,
    /// Tasks that are given and not done.
    open: Arc<AtomicUsize>,
    threads: usize,
    at_most: usize,
}

impl<'scope, 'env, M: Send + 'scope> Crew<'scope, 'env, M> {
    /// A crew of `at_most` threads, whose results go to `post`. If a task panics, that is its result.
    pub(super) fn new(scope: &'scope Scope<'scope, 'env>, post: Post<Done<M>>, at_most: usize) -> Self {
        let (tasks, waiting) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        Self { scope, tasks, waiting, post, open: Arc::default(), threads: 0, at_most }
    }

    /// Has a task done, after those that were given before.
    ///
    /// # Errors
    /// If the system gives no thread, not even a first one.
    pub(super) fn give(&mut self, task: impl FnOnce() -> M + Send + 'scope) -> io::Result<()> {
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        if open > self.threads && self.threads < self.at_most {
            match self.start() {
                Ok(()) => self.threads += 1,
                Err(error) if self.threads == 0 => return Err(error),
                Err(_) => self.at_most = self.threads,
            }
        }
        // The other end is held by this crew.
        let _ = self.tasks.send(Box::new(task));
        Ok(())
    }

    fn start(&self) -> io::Result<()> {
        let (waiting, post, open) = (Arc::clone(&self.waiting), self.post.clone(), Arc::clone(&self.open));
        let work = move || {
            loop {
                // One thread waits for the next task, the others wait for their turn to wait.
                let task = waiting.lock().unwrap_or_else(PoisonError::into_inner).recv();
                let Ok(task) = task else { return };
                let done = panic::catch_unwind(AssertUnwindSafe(task));
                open.fetch_sub(1, Ordering::Relaxed);
                post.leave(done);
            }
        };
        Builder::new().name("crew".to_owned()).spawn_scoped(self.scope, work).map(drop)
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use std::{sync::Barrier, thread};

    use super::{super::mailbox::Mailbox, *};

    #[test]
    fn as_many_threads_start_as_there_is_work_for_and_every_result_comes() {
        let mailbox = Mailbox::new().unwrap();
        let together = Barrier::new(3);
        thread::scope(|scope| {
            let mut crew = Crew::new(scope, mailbox.post(), 3);
            for number in 0..3 {
                let together = &together;
                crew.give(move || {
                    // Passes only if all three are at work at the same time.
                    together.wait();
                    number
                })
                .unwrap();
            }
            for number in 3..100 {
                crew.give(move || number).unwrap();
            }
            assert!(crew.threads <= 3);
        });
        let mut done: Vec<u32> = mailbox.empty().into_iter().map(Result::unwrap).collect();
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_panic_is_a_result_and_ends_nothing_else() {
        let mailbox = Mailbox::new().unwrap();
        thread::scope(|scope| {
            let mut crew = Crew::new(scope, mailbox.post(), 1);
            crew.give(|| panic!("a bug")).unwrap();
            crew.give(|| ()).unwrap();
        });
        let done = mailbox.empty();
        assert_eq!(done[0].as_ref().unwrap_err().downcast_ref::<&str>(), Some(&"a bug"));
        assert!(done[1].is_ok());
    }
}
