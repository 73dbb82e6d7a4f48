//! What a running stage has in its hands: its inputs, its outputs, and a way to report.

use std::{
    io::Write,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::{Artifact, Event, Failure, Job, Level};

/// How often progress is worth a line.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(100);

/// The surroundings of one running stage. Shared by reference between its threads.
pub struct Context {
    job: Job,
    events: Mutex<Box<dyn Write + Send>>,
    last_progress: Mutex<Option<Instant>>,
    cancelled: Arc<AtomicBool>,
}

impl Context {
    /// A context that writes its events to `events`. Set `cancelled` to ask the stage to stop.
    pub fn new(job: Job, events: Box<dyn Write + Send>, cancelled: Arc<AtomicBool>) -> Self {
        Self { job, events: Mutex::new(events), last_progress: Mutex::new(None), cancelled }
    }

    /// The job description.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The folder of a required input with one artifact.
    ///
    /// # Errors
    /// If the job has no such input, which the engine rules out for inputs declared as required.
    pub fn input(&self, name: &str) -> Result<&Path, Failure> {
        self.optional_input(name).ok_or_else(|| Failure::environment(format!("the job has no input `{name}`")))
    }

    /// The folder of an input, if the stage has it.
    pub fn optional_input(&self, name: &str) -> Option<&Path> {
        self.job.inputs.get(name)?.first().map(|artifact| artifact.path.as_path())
    }

    /// The folders of an input that takes a list, in the pipeline's order.
    pub fn inputs(&self, name: &str) -> impl Iterator<Item = &Path> {
        self.job.inputs.get(name).into_iter().flatten().map(|artifact| artifact.path.as_path())
    }

    /// The folder of the only output. It exists and is empty.
    pub fn output(&self) -> PathBuf {
        self.output_named("out")
    }

    /// The folder of one of several outputs. It exists and is empty.
    pub fn output_named(&self, name: &str) -> PathBuf {
        self.job.output.join(name)
    }

    /// An empty folder to work in, in the same file system as the outputs.
    pub fn work(&self) -> &Path {
        &self.job.work
    }

    /// A folder that a killed attempt leaves to the next one with the same key: checkpoints, partial downloads. It is made
    /// when it is asked for: few stages have anything to leave.
    pub fn resume(&self) -> &Path {
        // If it cannot be made, what is written to it fails, and that tells more.
        let _ = std::fs::create_dir_all(&self.job.resume);
        &self.job.resume
    }

    /// The user's own file or folder that the field `field` of the configuration names.
    ///
    /// # Errors
    /// If the job has none, which the engine rules out for what [`Kind::user_files`](crate::Kind::user_files) listed.
    pub fn user_file(&self, field: &str) -> Result<&Artifact, Failure> {
        self.job.user_files.get(field).ok_or_else(|| Failure::environment(format!("the job has no file for `{field}`")))
    }

    /// What the reference in the field `field` of the configuration stands for.
    ///
    /// # Errors
    /// If the job does not say, which the engine rules out for what [`Kind::references`](crate::Kind::references) listed.
    pub fn pin(&self, field: &str) -> Result<&str, Failure> {
        let pin = self.job.pins.get(field).map(String::as_str);
        pin.ok_or_else(|| Failure::environment(format!("the job does not say what `{field}` stands for")))
    }

    /// How many threads the pipeline gives the stage; `None` leaves it to the stage.
    pub fn cpus(&self) -> Option<usize> {
        self.job.resources.cpus
    }

    /// How many CUDA devices to use; 0 means the CPU.
    pub fn gpus(&self) -> usize {
        self.job.resources.gpus
    }

    /// Whether the stage was asked to stop. Look every now and then, save what can be resumed, and return
    /// [`Failure::cancelled`](crate::Failure::cancelled).
    pub fn cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Says how far the work is. Cheap enough for every row: most calls send nothing.
    pub fn progress(&self, unit: &str, done: u64, total: Option<u64>) {
        let now = Instant::now();
        {
            let mut last = self.last_progress.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            let due = last.is_none_or(|last| now - last >= PROGRESS_INTERVAL) || Some(done) == total;
            if !due {
                return;
            }
            *last = Some(now);
        }
        self.send(&Event::Progress { unit: unit.to_owned(), done, total });
    }

    /// Reports the measurements of one step.
    pub fn metric<'a>(&self, step: u64, values: impl IntoIterator<Item = (&'a str, f64)>) {
        let values = values.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        self.send(&Event::Metric { step, values });
    }

    /// Reports a figure of the finished work.
    pub fn figure(&self, name: &str, value: impl Into<serde_json::Value>) {
        self.send(&Event::Figure { name: name.to_owned(), value: value.into() });
    }

    /// Says something that is good to know.
    pub fn info(&self, message: impl Into<String>) {
        self.send(&Event::Log { level: Level::Info, message: message.into() });
    }

    /// Says something that is likely not what the user meant.
    pub fn warn(&self, message: impl Into<String>) {
        self.send(&Event::Log { level: Level::Warn, message: message.into() });
    }

    pub(crate) fn send(&self, event: &Event) {
        let Ok(mut line) = serde_json::to_vec(event) else { return };
        line.push(b'\n');
        let mut events = self.events.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // A scheduler that no longer listens is about to end this process; there is nobody to tell.
        let _ = events.write_all(&line).and_then(|()| events.flush());
    }
}
