//! How the program ends: its exit codes, and how errors look at the edge.

use std::process::ExitCode;

use anstream::{AutoStream, ColorChoice};
use owo_colors::OwoColorize;

use crate::{
    cache::CacheError,
    config::{self, ConfigError},
    runs::Unclear,
    scheduler::RunError,
};

/// Diagnostics are wrapped at this many characters.
const WIDTH: usize = 110;

/// How the program ends. The numbers are part of its interface.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Exit {
    /// 0: everything asked for is there.
    Done,
    /// 2: wrong usage, or an invalid pipeline.
    Usage,
    /// 3: the machine lacks something.
    Environment,
    /// What a run or a worker ended with.
    Code(ExitCode),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Usage => Self::from(2),
            Exit::Environment => Self::from(3),
            Exit::Code(code) => code,
        }
    }
}

/// An error that ends the program.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The pipeline is not valid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The command line asks for something that is not there.
    #[error("{message}")]
    Usage {
        /// What is wrong.
        message: String,
        /// What would be right.
        help: Option<String>,
    },
    /// The cache cannot be used.
    #[error(transparent)]
    Cache(#[from] CacheError),
    /// What a run needs is not known.
    #[error("{0}; nothing was removed")]
    Unclear(#[from] Unclear),
    /// A run could not begin.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A result cannot be written.
    #[error("cannot write to {target}")]
    Write {
        /// Where to.
        target: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

impl CliError {
    /// Wrong usage, with what would be right.
    pub fn usage(message: impl Into<String>, help: impl Into<Option<String>>) -> Self {
        Self::Usage { message: message.into(), help: help.into() }
    }

    /// The pipeline's problems, however they came here.
    fn as_config(&self) -> Option<&ConfigError> {
        match self {
            Self::Config(error) | Self::Run(RunError::Pipeline(error)) => Some(error),
            _ => None,
        }
    }

    /// Writes the error to standard error, and says how the program ends.
    pub(super) fn report(&self) -> Exit {
        if let Some(error) = self.as_config() {
            let color = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            anstream::eprint!("{}", config::render(error, color, WIDTH));
            return Exit::Usage;
        }
        anstream::eprintln!("{} {self}", "error:".red());
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            anstream::eprintln!("  because: {error}");
            cause = error.source();
        }
        match self {
            Self::Usage { help, .. } => {
                if let Some(help) = help {
                    anstream::eprintln!("   help: {help}");
                }
                Exit::Usage
            }
            Self::Config(_) => Exit::Usage,
            Self::Run(error) => {
                if let Some(help) = error.help() {
                    anstream::eprintln!("   help: {help}");
                }
                Exit::Code(error.exit_code().into())
            }
            Self::Cache(
                CacheError::DestinationTaken { .. }
                | CacheError::DestinationForbidden { .. }
                | CacheError::DestinationIsFolder { .. }
                | CacheError::DestinationEdited { .. },
            ) => Exit::Usage,
            Self::Unclear(unclear) => {
                let path = unclear.path.display();
                anstream::eprintln!("   help: if the run is not worth keeping, remove {path}");
                Exit::Environment
            }
            Self::Cache(_) | Self::Write { .. } => Exit::Environment,
        }
    }
}
