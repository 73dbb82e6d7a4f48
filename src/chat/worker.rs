//! The process that holds a model: started, asked, listened to, ended. See `pipe_chat` for what is said.

use std::{
    collections::{HashMap, VecDeque},
    io::{self, BufRead, BufReader, Read, Write},
    os::unix::process::CommandExt,
    path::PathBuf,
    process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use pipe_chat::{Fault, Load, Order, Question, Reply, SUBCOMMAND};
use pipe_stage::Program;

use crate::{
    report,
    scheduler::{ProgramError, Programs, worker_environment},
};

/// Of what the process writes to standard error, so much is kept, in bytes: its last words.
const LAST_WORDS: usize = 4096;

/// Takes the replies about one question, or about the loading of the model. Called on a thread that must not wait.
pub type Hear = Box<dyn FnMut(Reply) + Send>;

/// Why there is nobody to ask.
#[derive(Debug, thiserror::Error)]
pub enum ChatError {
    /// The program is not there.
    #[error(transparent)]
    Program(#[from] ProgramError),
    /// It cannot be started.
    #[error("cannot start {}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// A process that loads a model and then answers. It ends with this value.
#[derive(Debug)]
pub struct Worker {
    child: Child,
    orders: Mutex<Option<ChildStdin>>,
    listeners: Arc<Mutex<Listeners>>,
    next: AtomicU64,
    ears: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Listeners {
    /// Until the model is loaded.
    load: Option<Hear>,
    questions: HashMap<u64, Hear>,
    /// Why the process has ended, if it has.
    ended: Option<String>,
}

impl std::fmt::Debug for Listeners {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listeners").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Worker {
    /// Starts the process and has it load a model. `loaded` hears [`Reply::Loaded`] or [`Reply::Refused`].
    ///
    /// # Errors
    /// If the program is not there, or cannot be started.
    pub fn start(load: Load, gpu: Option<&str>, loaded: Hear) -> Result<Self, ChatError> {
        let programs = Programs::locate()?;
        let path = programs.path(Program::PipeTorch)?;
        let mut command = Command::new(path);
        worker_environment(&mut command);
        if let Some(gpu) = gpu {
            command.env("CUDA_VISIBLE_DEVICES", gpu);
        }
        command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // Ctrl-C is for the one who asks.
        command.process_group(0);
        let start = |source| ChatError::Start { path: path.clone(), source };
        let mut child = command.spawn().map_err(start)?;
        let listeners = Arc::new(Mutex::new(Listeners { load: Some(loaded), ..Listeners::default() }));
        let mut worker = Self {
            orders: Mutex::new(child.stdin.take()),
            child,
            listeners,
            next: AtomicU64::new(1),
            ears: Vec::new(),
        };
        if let (Some(output), Some(errors)) = (worker.child.stdout.take(), worker.child.stderr.take()) {
            worker.listen(output, errors).map_err(start)?;
        }
        worker.tell(&Order::Load(load));
        Ok(worker)
    }

    /// Asks; `hear` gets the replies, the last of which is [`Reply::Done`] or [`Reply::Failed`]. Gives the question's
    /// number.
    pub fn ask(&self, question: Question, mut hear: Hear) -> u64 {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut listeners = lock(&self.listeners);
        if let Some(why) = &listeners.ended {
            hear(Reply::Failed { id, fault: Fault::Machine, message: why.clone() });
            return id;
        }
        listeners.questions.insert(id, hear);
        drop(listeners);
        self.tell(&Order::Ask(Question { id, ..question }));
        id
    }

    /// Stops an answer. Its last reply still comes.
    pub fn cancel(&self, id: u64) {
        self.tell(&Order::Cancel { id });
    }

    /// Why the process has ended, if it has.
    pub fn ended(&self) -> Option<String> {
        lock(&self.listeners).ended.clone()
    }

    /// That nobody reads is found out by those who listen.
    fn tell(&self, order: &Order) {
        let Ok(mut line) = serde_json::to_vec(order) else { return };
        line.push(b'\n');
        if let Some(orders) = &mut *lock(&self.orders) {
            let _ = orders.write_all(&line).and_then(|()| orders.flush());
        }
    }
}

impl Worker {
    fn listen(&mut self, output: ChildStdout, errors: ChildStderr) -> io::Result<()> {
        let last_words = Arc::new(Mutex::new(VecDeque::new()));
        let spawn = |name: &str| std::thread::Builder::new().name(name.to_owned());
        let overheard = spawn("last words").spawn({
            let last_words = Arc::clone(&last_words);
            move || overhear(errors, &last_words)
        })?;
        let listeners = Arc::clone(&self.listeners);
        self.ears.push(spawn("replies").spawn(move || {
            for line in BufReader::new(output).lines() {
                let Ok(line) = line else { break };
                // What is no reply is a library's chatter.
                if let Ok(reply) = serde_json::from_str(&line) {
                    lock(&listeners).pass_on(reply);
                }
            }
            let _ = overheard.join();
            let said: Vec<u8> = lock(&last_words).iter().copied().collect();
            lock(&listeners).end(&String::from_utf8_lossy(&said));
        })?);
        Ok(())
    }
}

impl Listeners {
    fn pass_on(&mut self, reply: Reply) {
        match reply.id() {
            None => {
                if let Some(mut load) = self.load.take() {
                    load(reply);
                }
            }
            Some(id) => {
                let last = reply.is_last();
                if let Some(hear) = self.questions.get_mut(&id) {
                    hear(reply);
                }
                if last {
                    self.questions.remove(&id);
                }
            }
        }
    }

    fn end(&mut self, said: &str) {
        let said = said.lines().rev().map(report::printable).find(|line| !line.trim().is_empty());
        let why = match said {
            Some(said) => format!("`pipe-torch` has ended: {said}"),
            None => "`pipe-torch` has ended, and said nothing: the system may have had too little memory".to_owned(),
        };
        if let Some(mut load) = self.load.take() {
            load(Reply::Refused { message: why.clone(), hint: None, environment: true });
        }
        for (id, mut hear) in self.questions.drain() {
            hear(Reply::Failed { id, fault: Fault::Machine, message: why.clone() });
        }
        self.ended = Some(why);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        lock(&self.orders).take();
        // It has nothing that it must put away.
        let _ = self.child.kill();
        let _ = self.child.wait();
        for ear in self.ears.drain(..) {
            let _ = ear.join();
        }
    }
}

/// Keeps the last bytes of a stream.
fn overhear(mut errors: ChildStderr, last_words: &Mutex<VecDeque<u8>>) {
    let mut piece = [0; 1024];
    while let Ok(read) = errors.read(&mut piece) {
        if read == 0 {
            return;
        }
        let mut words = lock(last_words);
        words.extend(&piece[..read]);
        let too_many = words.len().saturating_sub(LAST_WORDS);
        words.drain(..too_many);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
