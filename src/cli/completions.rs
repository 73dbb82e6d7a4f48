//! `pipe completions`: a script that lets a shell complete the commands, options, pipeline files and stages of `pipe`.
//!
//! The script asks `pipe` itself at every press of the tab key, so it never lags behind the program, and can name what
//! is in a pipeline file. [`answer`] is that other end.

use clap::{Args, CommandFactory, ValueEnum};
use clap_complete::{
    CompleteEnv,
    env::{Bash, Elvish, EnvCompleter, Fish, Powershell, Zsh},
};

use super::{Arguments, CliError, Exit, pipeline::print};

/// Set by the script when it asks what could come next.
const VARIABLE: &str = "PIPE_COMPLETE";

/// Arguments of `pipe completions`.
#[derive(Args)]
#[command(after_help = "\
Add one line to the file that your shell reads when it starts:
  bash        source <(pipe completions bash)
  zsh         source <(pipe completions zsh)
  fish        pipe completions fish | source
  elvish      eval (pipe completions elvish | slurp)
  powershell  pipe completions powershell | Out-String | Invoke-Expression")]
pub(super) struct Completions {
    /// The shell
    shell: Shell,
}

/// The shells that can be taught.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
    Elvish,
    Powershell,
}

impl Completions {
    pub(super) fn execute(self) -> Result<Exit, CliError> {
        let completer: &dyn EnvCompleter = match self.shell {
            Shell::Bash => &Bash,
            Shell::Zsh => &Zsh,
            Shell::Fish => &Fish,
            Shell::Elvish => &Elvish,
            Shell::Powershell => &Powershell,
        };
        let mut script = Vec::new();
        completer
            .write_registration(VARIABLE, "pipe", "pipe", "pipe", &mut script)
            .map_err(|source| CliError::Write { target: "standard output".to_owned(), source })?;
        print(&String::from_utf8_lossy(&script))?;
        Ok(Exit::Done)
    }
}

/// Answers a shell that asks what could come next, and ends the program. Does nothing if none does.
pub(super) fn answer() {
    CompleteEnv::with_factory(Arguments::command).var(VARIABLE).complete();
}
