//! Meeting points between a test and a worker: a pair of named pipes, so that neither has to guess when the other is
//! where it should be.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use rustix::fs::{CWD, FileType, Mode, mknodat};

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
    /// If the pipe cannot be read.
    pub fn wait_for_worker(&self) -> io::Result<Arrived> {
        let mut pipe = File::open(self.folder.join("arrived"))?;
        pipe.read_exact(&mut [0])?;
        Ok(Arrived { pipe, folder: self.folder.clone() })
    }
}

impl Arrived {
    /// Lets the worker pass.
    ///
    /// # Errors
    /// If the pipe cannot be written.
    pub fn open(self) -> io::Result<()> {
        File::options().write(true).open(self.folder.join("go"))?.write_all(b".")
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
    let mut arrived = File::options().write(true).open(folder.join("arrived"))?;
    arrived.write_all(b".")?;
    File::open(folder.join("go"))?.read_exact(&mut [0])
}

/// The worker's side: says that it is there, and keeps the pipe open until `stop` says so.
pub(crate) fn stand(folder: &Path, stop: impl Fn() -> bool) -> io::Result<()> {
    let mut arrived = File::options().write(true).open(folder.join("arrived"))?;
    arrived.write_all(b".")?;
    while !stop() {
        std::thread::park_timeout(std::time::Duration::from_millis(2));
    }
    Ok(())
}
