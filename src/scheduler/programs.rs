//! Where the worker programs are.

use std::path::PathBuf;

use pipe_stage::Program;

/// Names the torch worker where it is not installed beside `pipe`.
const TORCH_VARIABLE: &str = "PIPE_TORCH";

/// The file name of the torch worker.
const TORCH_NAME: &str = "pipe-torch";

/// The programs that workers are started from.
#[derive(Debug, Clone)]
pub struct Programs {
    pipe: PathBuf,
    pipe_torch: PathBuf,
}

/// A worker program that is not there.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The running program has no path.
    #[error("cannot find out where `pipe` itself is")]
    Unknown(#[source] std::io::Error),
    /// The torch worker is not installed.
    #[error("`pipe-torch`, the worker for this kind, is not at {}", path.display())]
    Missing {
        /// Where it should be.
        path: PathBuf,
    },
}

impl ProgramError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Unknown(_) => None,
            Self::Missing { .. } => Some(format!(
                "build it with `make build`, install it beside `pipe`, or set {TORCH_VARIABLE} to its path; `pipe doctor` shows what is found"
            )),
        }
    }
}

impl Programs {
    /// The running program is `pipe`; the torch worker is where `PIPE_TORCH` says, else beside it.
    ///
    /// # Errors
    /// If the system does not tell where the running program is.
    pub fn locate() -> Result<Self, ProgramError> {
        let pipe = std::env::current_exe().map_err(ProgramError::Unknown)?;
        let pipe_torch = match std::env::var_os(TORCH_VARIABLE) {
            Some(path) if !path.is_empty() => std::path::absolute(path).map_err(ProgramError::Unknown)?,
            _ => pipe.with_file_name(TORCH_NAME),
        };
        Ok(Self { pipe, pipe_torch })
    }

    /// The path of a program that is there.
    ///
    /// # Errors
    /// If it is not.
    pub fn path(&self, program: Program) -> Result<&PathBuf, ProgramError> {
        let path = match program {
            Program::Pipe => &self.pipe,
            Program::PipeTorch => &self.pipe_torch,
        };
        if path.is_file() { Ok(path) } else { Err(ProgramError::Missing { path: path.clone() }) }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn the_torch_worker_is_beside_pipe_and_its_absence_is_explained() {
        let folder = tempfile::tempdir().unwrap();
        let programs = Programs { pipe: folder.path().join("pipe"), pipe_torch: folder.path().join("pipe-torch") };
        let error = programs.path(Program::PipeTorch).unwrap_err();
        assert!(error.to_string().contains("pipe-torch"), "{error}");
        assert!(error.hint().unwrap().contains("make build"));

        std::fs::write(folder.path().join("pipe-torch"), "").unwrap();
        assert_eq!(programs.path(Program::PipeTorch).unwrap(), &folder.path().join("pipe-torch"));
        assert!(Programs::locate().unwrap().path(Program::Pipe).is_ok());
    }
}
