//! Why a command's stage fails, beside the errors of the contract.

use std::{io, path::PathBuf};

/// Why a command's stage fails.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be laid out, moved or looked at.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was to be done.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of the user's is not what the key says.
    #[error("`{}` changed since the run looked at it", path.display())]
    Changed {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file of the user's is neither a file nor a folder, or has a name that is not UTF-8.
    #[error("`{}` cannot be laid out: {why}", path.display())]
    Unusable {
        /// The file or folder.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// No such program.
    #[error("there is no program `{program}` {place}")]
    NoProgram {
        /// As it was asked for.
        program: String,
        /// Where it was looked for.
        place: &'static str,
    },
    /// The program is there and does not start.
    #[error("cannot start `{program}`")]
    Start {
        /// As it was asked for.
        program: String,
        /// What the system said.
        source: io::Error,
    },
    /// It cannot be waited for.
    #[error("cannot watch over `{command}`")]
    Watch {
        /// The command.
        command: String,
        /// What the system said.
        source: io::Error,
    },
    /// It said that it failed.
    #[error("`{command}` ended with exit status {status}")]
    Status {
        /// The command.
        command: String,
        /// Not 0.
        status: i32,
    },
    /// A signal ended it.
    #[error("`{command}` was killed by signal {signal}{name}")]
    Signal {
        /// The command.
        command: String,
        /// The signal's number.
        signal: i32,
        /// Its name in brackets, if it has a well-known one.
        name: &'static str,
    },
    /// A declared output is not there.
    #[error("the command did not write its output `{output}`")]
    Missing {
        /// The path.
        output: String,
    },
    /// A declared output is something else than was declared.
    #[error("the output `{output}` is {found}, not {expected}")]
    Form {
        /// The path.
        output: String,
        /// What it is.
        found: &'static str,
        /// What was declared.
        expected: &'static str,
    },
    /// A declared folder without any file.
    #[error("the output `{output}` holds no files")]
    Empty {
        /// The path.
        output: String,
    },
    /// Files that are no output.
    #[error("the command left {}, which no output declares", list(files))]
    Undeclared {
        /// Their paths, sorted.
        files: Vec<String>,
    },
}

/// How many files a sentence names.
const LISTED: usize = 5;

/// `` `a` ``, `` `a` and `b` ``, `` `a`, `b` and 3 more files ``.
pub(crate) fn list(files: &[String]) -> String {
    let quoted: Vec<String> = files.iter().take(LISTED).map(|file| format!("`{}`", file.escape_debug())).collect();
    let more = files.len() - quoted.len();
    match quoted.as_slice() {
        [first @ .., last] if more == 0 && !first.is_empty() => format!("{} and {last}", first.join(", ")),
        quoted if more == 0 => quoted.join(", "),
        quoted => format!("{} and {more} more files", quoted.join(", ")),
    }
}

/// For `map_err`: what was to be done with which file.
pub(crate) fn failed(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
    let path = path.into();
    move |source| Error::Io { action, path, source }
}
