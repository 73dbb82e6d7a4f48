//! `pipe run` and `pipe worker` with the fake kinds: the program that tests of the engine start.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::Parser;
use pipe::{
    cache::Home,
    config::{self, StageName},
    report::{Human, JsonLines, Sink},
    scheduler::{self, Options, RunError},
};

/// Of diagnostics, in columns.
const WIDTH: usize = 120;

#[derive(Parser)]
enum Arguments {
    Run {
        file: PathBuf,
        stages: Vec<String>,
        #[arg(long = "set")]
        overrides: Vec<String>,
        #[arg(long, default_value = "1")]
        jobs: NonZeroUsize,
        #[arg(long)]
        text: bool,
    },
    Worker,
    Linger {
        gate: PathBuf,
        ready: PathBuf,
    },
    /// Panics.
    Bug {
        #[arg(long)]
        in_thread: bool,
    },
}

fn main() -> ExitCode {
    pipe::cli::guard(program)
}

#[expect(clippy::print_stderr, reason = "the edge of a program for tests")]
fn program() -> ExitCode {
    match Arguments::parse() {
        Arguments::Bug { in_thread: false } => panic!("told to"),
        Arguments::Bug { in_thread: true } => {
            let _ = std::thread::spawn(|| panic!("told to")).join();
            ExitCode::SUCCESS
        }
        Arguments::Worker => pipe_stage::worker_main(&pipe_testkit::runners()),
        Arguments::Linger { gate, ready } => match pipe_testkit::linger(&gate, &ready) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("{error}");
                ExitCode::FAILURE
            }
        },
        Arguments::Run { file, stages, overrides, jobs, text } => {
            let overrides: Vec<_> = overrides
                .iter()
                .filter_map(|given| given.split_once('='))
                .map(|(path, value)| (path.to_owned(), value.to_owned()))
                .collect();
            let pipeline = match config::load(&file, &overrides, pipe_testkit::KINDS) {
                Ok(pipeline) => pipeline,
                Err(error) => {
                    eprintln!("{}", config::render(&error, false, WIDTH));
                    return ExitCode::from(2);
                }
            };
            let mut sink: Box<dyn Sink> =
                if text { Box::new(Human::stderr()) } else { Box::new(JsonLines::new(std::io::stdout())) };
            let options = Options {
                targets: stages.iter().filter_map(|name| StageName::new(name)).collect(),
                jobs,
                again: format!("pipe run {}", file.display()),
            };
            let home = Home::locate(&pipeline.folder).map_err(RunError::from);
            match home.and_then(|home| scheduler::run(&pipeline, &home, &options, sink.as_mut())) {
                Ok(summary) => ExitCode::from(summary.outcome.exit_code()),
                Err(error) => {
                    match &error {
                        RunError::Pipeline(error) => eprintln!("{}", config::render(error, false, WIDTH)),
                        error => eprintln!("{error}"),
                    }
                    ExitCode::from(error.exit_code())
                }
            }
        }
    }
}
