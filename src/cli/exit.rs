//! How the program ends: its exit codes, and how errors look at the edge.

use std::{path::PathBuf, process::ExitCode};

use anstream::{AutoStream, ColorChoice};
use owo_colors::OwoColorize;

use super::said::{self, say};
use crate::{
    bundle::{BundleError, ShareError, UNPACKED},
    cache::CacheError,
    config::{self, ConfigError},
    pins::{PinsError, SettleError},
    runs::Unclear,
    scheduler::RunError,
};

/// Diagnostics are wrapped at this many characters.
const WIDTH: usize = 100;

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
    Unclear(Unclear),
    /// A run could not begin.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A run cannot be shared.
    #[error(transparent)]
    Share(#[from] ShareError),
    /// A bundle is not to be trusted, or cannot be read.
    #[error("`{}` is refused", path.display())]
    Bundle {
        /// The bundle.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: BundleError,
    },
    /// The machine lacks something.
    #[error("{message}")]
    Lacks {
        /// What.
        message: String,
        /// How to get it.
        help: String,
    },
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

/// By hand: the message says what is unclear, and a source would say it again.
impl From<Unclear> for CliError {
    fn from(unclear: Unclear) -> Self {
        Self::Unclear(unclear)
    }
}

impl CliError {
    /// Wrong usage, with what would be right.
    pub fn usage(message: impl Into<String>, help: impl Into<Option<String>>) -> Self {
        Self::Usage { message: message.into(), help: help.into() }
    }

    /// What to do about it, where the message does not say it.
    fn help(&self) -> Option<String> {
        match self {
            Self::Usage { help, .. } => help.clone(),
            Self::Lacks { help, .. } => Some(help.clone()),
            Self::Share(error) => error.help(),
            Self::Run(error) => error.help(),
            Self::Cache(error) => error.hint().map(str::to_owned),
            Self::Unclear(unclear) => {
                Some(format!("if the run is not worth keeping, remove {}", unclear.path.display()))
            }
            Self::Bundle { source: BundleError::Limit { what, .. }, .. } if *what == UNPACKED => {
                Some("if you trust it, allow more with --max-size".to_owned())
            }
            _ => None,
        }
    }

    /// The pipeline's problems, however they came here.
    fn as_config(&self) -> Option<&ConfigError> {
        match self {
            Self::Config(error)
            | Self::Run(RunError::Pipeline(error) | RunError::Settle(SettleError::File(PinsError::Invalid(error))))
            | Self::Share(ShareError::Pipeline(error))
            | Self::Bundle { source: BundleError::Pipeline(error), .. } => Some(error),
            _ => None,
        }
    }

    /// Writes the error to standard error, and says how the program ends.
    pub(super) fn report(&self) -> Exit {
        if let Some(error) = self.as_config() {
            let color = AutoStream::choice(&std::io::stderr()) != ColorChoice::Never;
            said::write(format_args!("{}", config::render(error, color, WIDTH)));
            return Exit::Usage;
        }
        say!("{} {self}", "error:".red());
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            say!("  because: {error}");
            cause = error.source();
        }
        if let Some(help) = self.help() {
            say!("   help: {help}");
        }
        match self {
            Self::Config(_) | Self::Usage { .. } => Exit::Usage,
            Self::Share(ShareError::Cache(_) | ShareError::Artifact { .. }) => Exit::Environment,
            Self::Share(ShareError::Bundle(BundleError::Write(_) | BundleError::Read(_))) => Exit::Environment,
            Self::Share(_) => Exit::Usage,
            Self::Bundle { source: BundleError::Room { .. } | BundleError::Unpack { .. }, .. } => Exit::Environment,
            Self::Bundle { .. } => Exit::Usage,
            Self::Run(error) => Exit::Code(error.exit_code().into()),
            Self::Cache(
                CacheError::DestinationTaken { .. }
                | CacheError::DestinationForbidden { .. }
                | CacheError::DestinationIsFolder { .. }
                | CacheError::DestinationEdited { .. },
            ) => Exit::Usage,
            Self::Cache(_) | Self::Unclear(_) | Self::Write { .. } | Self::Lacks { .. } => Exit::Environment,
        }
    }
}
