//! `pipe cache`: look after what is stored.

mod du;
mod gc;
mod rebuild;
mod verify;
mod why;

use clap::{Args, Subcommand};

use super::{CliError, Exit};
use crate::cache::Home;

/// Arguments of `pipe cache`.
#[derive(Args)]
pub(super) struct Cache {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read everything in the cache, and name what is damaged: exit code 1 if anything is
    Verify(verify::Verify),
    /// Remove what no run that stays, no pipeline and no work in progress needs
    Gc(gc::Gc),
    /// Say what takes the space, by pipeline, stage and run
    Du(du::Du),
}

impl Cache {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        match self.command {
            Command::Verify(command) => command.execute(),
            Command::Gc(command) => command.execute(),
            Command::Du(command) => command.execute(),
        }
    }
}

/// The home of the folder that the program was started in.
fn home() -> Result<Home, CliError> {
    let home = Home::locate(&std::env::current_dir().unwrap_or_default())?;
    if home.exists() {
        return Ok(home);
    }
    let help = "the cache of another folder is chosen by $PIPE_HOME, or by going there".to_owned();
    Err(CliError::usage(format!("there is no cache at {}", home.root().display()), help))
}
