//! Meeting points between a test and a worker: a pair of named pipes, so that neither has to guess when the other is
//! where it should be.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{CWD, FileType, Mode, OFlags, mknodat},
};

/// So long a test waits for a worker.
const PATIENCE: Timespec = Timespec { tv_sec: 120, tv_nsec: 0 };

/// The test's side: a folder with the pipes `arrived` and `go`.
#[derive(Debug, Clone)]
pub struct Gate {
    folder: PathBuf,
}

/// A worker that stands at a gate. As long as this is there, the test can tell whether the worker lives.
#[derive(Debug)]
pub struct Arrived {
    pipe: File,
    folder: PathBuf,
}

impl Gate {
    /// Makes a gate in a new folder.
    ///
    /// # Errors
    /// If the folder or the pipes cannot be made.
    pub fn new(folder: PathBuf) -> io::Result<Self> {
        std::fs::create_dir(&folder)?;
        for name in ["arrived", "go"] {
            mknodat(CWD, folder.join(name), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0)?;
        }
        Ok(Self { folder })
    }

    /// The folder, for a stage's configuration.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Waits until a worker stands at the gate.
    ///
    /// # Errors
    /// If the pipe cannot be read, or nobody comes: a test that is wrong fails, and does not wait for ever.
    pub fn wait_for_worker(&self) -> io::Result<Arrived> {
        let pipe = self.arrivals()?;
        if !has_come(&pipe, PATIENCE)? {
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("nobody at {}", self.folder.display())));
        }
        let flags = rustix::fs::fcntl_getfl(&pipe)?;
        rustix::fs::fcntl_setfl(&pipe, flags - OFlags::NONBLOCK)?;
        let mut pipe = File::from(pipe);
        pipe.read_exact(&mut [0])?;
        Ok(Arrived { pipe, folder: self.folder.clone() })
    }

    /// Whether a worker stands at the gate, or is about to.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub fn has_worker(&self) -> io::Result<bool> {
        has_come(&self.arrivals()?, Timespec::default())
    }

    /// The pipe on which workers say that they are there, whether one is there or not.
    fn arrivals(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        Ok(rustix::fs::open(self.folder.join("arrived"), flags, Mode::empty())?)
    }
}

fn has_come(pipe: &OwnedFd, patience: Timespec) -> io::Result<bool> {
    let mut fds = [PollFd::new(pipe, PollFlags::IN)];
    poll(&mut fds, Some(&patience))?;
    Ok(!fds[0].revents().is_empty())
}

impl Arrived {
    /// Lets the worker pass.
    ///
    /// # Errors
    /// If the pipe cannot be written.
    pub fn open(self) -> io::Result<()> {
        File::options().write(true).open(self.folder.join("go"))?.write_all(b".")
    }

    /// Whether the worker lives: as long as it does, its end of the pipe is open.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub fn lives(&mut self) -> io::Result<bool> {
        let flags = rustix::fs::fcntl_getfl(&self.pipe)?;
        rustix::fs::fcntl_setfl(&self.pipe, flags | OFlags::NONBLOCK)?;
        let read = self.pipe.read(&mut [0]);
        rustix::fs::fcntl_setfl(&self.pipe, flags)?;
        match read {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(true),
            read => Ok(read? > 0),
        }
    }

    /// Waits until the worker is dead: the kernel closes its end of the pipe.
    ///
    /// # Errors
    /// If the pipe cannot be read.
    pub fn wait_for_death(mut self) -> io::Result<()> {
        self.pipe.read_to_end(&mut Vec::new()).map(drop)
    }
}

/// The worker's side: says that it is there and waits until it may go on.
pub(crate) fn pass(folder: &Path) -> io::Result<()> {
    let _arrived = arrive(folder)?;
    File::open(folder.join("go"))?.read_exact(&mut [0])
}

/// The worker's side: says that it is there, and keeps the pipe open until `stop` says so.
pub(crate) fn stand(folder: &Path, stop: impl Fn() -> bool) -> io::Result<()> {
    let _arrived = arrive(folder)?;
    wait_until(stop);
    Ok(())
}

/// A left child's side: stands at the gate in `folder` until it is killed, whatever it is told, and makes the file
/// `ready` once it does.
///
/// # Errors
/// If the pipe or the file cannot be opened.
pub fn linger(folder: &Path, ready: &Path) -> io::Result<()> {
    let ignored = std::sync::Arc::default();
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT, signal_hook::consts::SIGHUP] {
        signal_hook::flag::register(signal, std::sync::Arc::clone(&ignored))?;
    }
    let _arrived = arrive(folder)?;
    File::create(ready)?;
    // A test that failed takes its folder away: nobody stays for ever.
    wait_until(|| !ready.exists());
    Ok(())
}

/// The open pipe tells the test that this process lives.
fn arrive(folder: &Path) -> io::Result<File> {
    let mut arrived = File::options().write(true).open(folder.join("arrived"))?;
    arrived.write_all(b".")?;
    Ok(arrived)
}

fn wait_until(stop: impl Fn() -> bool) {
    while !stop() {
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
}
