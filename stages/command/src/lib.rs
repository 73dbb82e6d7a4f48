//! The kind `command`: any program as a stage.
//!
//! The worker lays the inputs out in an empty folder, runs the command there and waits, and moves what the command
//! declared into the outputs. It must not outlive the scheduler, and the command must not outlive it.

mod collect;
mod config;
mod environment;
mod error;
mod layout;
mod metrics;
mod places;
mod process;
mod program;

pub use config::{Config, Run, Undeclared};
pub use error::Error;
use pipe_stage::{Context, Failure, Form, Kind, Output, Port, Stage, UserFile};

/// The kind `command`.
pub struct Command;

impl Kind for Command {
    type Config = Config;
    const KIND: &'static str = "command";
    const VERSION: u32 = 1;
    const SUMMARY: &'static str = "Runs a program of any language";
    const INPUTS: &'static [Port] = &[];
    const OUTPUTS: &'static [&'static str] = &[];
    const OPEN_INPUTS: bool = true;
    const OPEN_OUTPUTS: bool = true;

    fn outputs(config: &Config) -> Vec<Output> {
        let form = |path: &config::Place| if path.is_folder() { Form::Folder } else { Form::File };
        config.outputs.iter().map(|(name, path)| Output { name: name.to_owned(), form: form(path) }).collect()
    }

    fn environment(config: &Config) -> Vec<String> {
        config.env.inherited().map(str::to_owned).collect()
    }

    fn command(config: &Config) -> Option<String> {
        Some(config.run.whole())
    }

    fn user_files(config: &Config) -> Vec<UserFile> {
        let file = |(index, script): (usize, &config::Script)| UserFile {
            field: format!("scripts.{index}"),
            path: script.path().into(),
        };
        config.scripts.iter().enumerate().map(file).collect()
    }
}

impl Stage for Command {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let placed = layout::lay_out(config, context)?;
        process::run(config, context)?;
        let outputs = collect::check(config, context.work(), &placed)?;
        metrics::report(context);
        collect::take(outputs, context)
    }
}
