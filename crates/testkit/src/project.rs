//! A temporary folder with a pipeline file and a cache of its own, and runs of `fake-pipe` in it.

use std::{
    io::{self, BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::Gate;

/// A temporary project. Everything in it is removed with it.
#[derive(Debug)]
pub struct Project {
    program: PathBuf,
    folder: tempfile::TempDir,
}

/// A run that has ended.
#[derive(Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// Its events.
    pub events: Vec<Value>,
    /// What it wrote to standard error.
    pub errors: String,
}

/// A run that is going on.
#[derive(Debug)]
pub struct Running {
    child: Child,
}

impl Project {
    /// A project whose runs use `program`, with the pipeline `text`.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn new(program: &str, text: &str) -> io::Result<Self> {
        Self::in_folder(tempfile::tempdir()?, program, text)
    }

    /// The same in memory, where there is such a file system: waiting for a disk is not what is tested.
    ///
    /// # Errors
    /// If the folder cannot be made.
    pub fn in_memory(program: &str, text: &str) -> io::Result<Self> {
        let memory = Path::new("/dev/shm");
        let folder = if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? };
        Self::in_folder(folder, program, text)
    }

    fn in_folder(folder: tempfile::TempDir, program: &str, text: &str) -> io::Result<Self> {
        let project = Self { program: program.into(), folder };
        project.write("pipeline.yaml", text)?;
        Ok(project)
    }

    /// The project's folder.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The folder of its cache.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Writes a file of the project.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, name: &str, text: &str) -> io::Result<()> {
        std::fs::write(self.folder.path().join(name), text)
    }

    /// A new gate.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn gate(&self, name: &str) -> io::Result<Gate> {
        Gate::new(self.folder.path().join(name))
    }

    /// Runs the pipeline to the end.
    ///
    /// # Errors
    /// If the program cannot be started, or its output is not what it should be.
    pub fn run(&self, arguments: &[&str]) -> io::Result<Ran> {
        self.start(arguments)?.finish()
    }

    /// Starts a run.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self, arguments: &[&str]) -> io::Result<Running> {
        self.start_in(&[], arguments)
    }

    /// Starts a run in which these variables of the environment are set.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start_in(&self, environment: &[(&str, &str)], arguments: &[&str]) -> io::Result<Running> {
        let mut command = self.command();
        command.envs(environment.iter().copied()).arg("run").arg("pipeline.yaml").args(arguments);
        Ok(Running { child: command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()? })
    }

    /// What a run would do: for each stage `hit`, `run` or `maybe`.
    ///
    /// # Errors
    /// If the program cannot be started, or fails: then with what it said.
    pub fn plan(&self, arguments: &[&str]) -> io::Result<Vec<(String, String)>> {
        let output = self.command().arg("plan").arg("pipeline.yaml").args(arguments).output()?;
        if !output.status.success() {
            return Err(io::Error::other(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let plan: Value = serde_json::from_slice(&output.stdout)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let stages = plan["stages"].as_array().into_iter().flatten();
        Ok(stages.map(|stage| (text(&stage["stage"]), text(&stage["action"]))).collect())
    }

    /// The text in the newest artifact of `stage`, by the events of `ran`.
    pub fn text(&self, ran: &Ran, stage: &str, output: &str) -> Option<String> {
        std::fs::read_to_string(self.checkout(ran, stage, output)?.join("text.txt")).ok()
    }

    /// A copy of the newest artifact of `stage`, by the events of `ran`: a folder in the project's.
    pub fn checkout(&self, ran: &Ran, stage: &str, output: &str) -> Option<PathBuf> {
        let finished = ran.events_of("stage_finished").find(|event| event["stage"] == stage)?;
        let digest: pipe_stage::Digest = finished["outputs"][output].as_str()?.parse().ok()?;
        let store = pipe::cache::Store::new(&pipe::cache::Home::open(self.home()).ok()?);
        let copy = self.folder.path().join("copies").join(digest.to_string());
        store.checkout_to(&digest, &copy, pipe::cache::Checkout::default()).ok()?;
        Some(copy)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("env");
        command
            // All the tests may have been started under nohup, and a run under nohup outlives its terminal.
            .arg("--default-signal=HUP")
            .arg(&self.program)
            .current_dir(self.folder.path())
            .env("PIPE_HOME", self.home())
            // Tests beside this one hand out GPUs of the same names.
            .env("PIPE_GPU_LOCKS", self.folder.path().join("gpus"))
            // Logs are looked at, and are to be as short everywhere.
            .env_remove("RUST_BACKTRACE")
            // Beside `fake-pipe` there may be a real one.
            .env("PIPE_TORCH", self.folder.path().join("no/pipe-torch"));
        command
    }
}

impl Running {
    /// The number of the scheduler's process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the scheduler alone.
    ///
    /// # Errors
    /// If it is gone.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// The processes that the scheduler started and that are its children still.
    ///
    /// # Errors
    /// If the kernel does not tell.
    pub fn children(&self) -> io::Result<Vec<Pid>> {
        let pid = self.child.id();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        Ok(text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect())
    }

    /// Reads events until one is called `name`, and returns it.
    ///
    /// # Errors
    /// If the run ends before.
    pub fn wait_for(&mut self, name: &str) -> io::Result<Value> {
        let stdout = self.child.stdout.as_mut().ok_or_else(|| io::Error::other("the output was taken"))?;
        // Byte by byte: a buffer would swallow the events behind this one.
        let mut line = Vec::new();
        loop {
            let mut byte = [0];
            stdout.read_exact(&mut byte)?;
            if byte[0] != b'\n' {
                line.push(byte[0]);
                continue;
            }
            let event: Value = serde_json::from_slice(&line)?;
            if event["event"] == name {
                return Ok(event);
            }
            line.clear();
        }
    }

    /// Waits for the end of the scheduler alone: what it started may keep its output open.
    ///
    /// # Errors
    /// If it cannot be waited for.
    pub fn finish_without_output(mut self) -> io::Result<Ran> {
        Ok(Ran { status: self.child.wait()?, events: Vec::new(), errors: String::new() })
    }

    /// Waits for the end, and reads what has not been read.
    ///
    /// # Errors
    /// If a line of output is no event.
    pub fn finish(mut self) -> io::Result<Ran> {
        let mut events = Vec::new();
        // Beside its output, or it would wait for somebody to read the one while the other is read.
        let errors = self.child.stderr.take().map(|mut stderr| {
            std::thread::spawn(move || {
                let mut errors = String::new();
                stderr.read_to_string(&mut errors).map(|_| errors)
            })
        });
        if let Some(stdout) = self.child.stdout.take() {
            for line in BufReader::new(stdout).lines() {
                events.push(serde_json::from_str(&line?)?);
            }
        }
        let errors = match errors.map(std::thread::JoinHandle::join) {
            Some(read) => read.map_err(|_| io::Error::other("cannot read what the run says"))??,
            None => String::new(),
        };
        Ok(Ran { status: self.child.wait()?, events, errors })
    }
}

impl Ran {
    /// The exit code; a signal counts from 1000.
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 1000 + self.status.signal().unwrap_or_default())
    }

    /// The events called `name`.
    pub fn events_of<'ran>(&'ran self, name: &'ran str) -> impl Iterator<Item = &'ran Value> {
        self.events.iter().filter(move |event| event["event"] == name)
    }

    /// The stages whose events are called `name`, in order.
    pub fn stages(&self, name: &str) -> Vec<String> {
        let stages = self.events_of(name).map(|event| event["stage"].as_str().unwrap_or_default().to_owned());
        stages.collect()
    }

    /// The stages that were started, in order.
    pub fn started(&self) -> Vec<String> {
        self.stages("stage_started")
    }

    /// The stages that were up to date, in order.
    pub fn hits(&self) -> Vec<String> {
        self.stages("stage_hit")
    }
}
