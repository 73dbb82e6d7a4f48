//! `pipe run` and `pipe worker` with the fake kinds: the program that tests of the engine start.

use std::{num::NonZeroUsize, path::PathBuf, process::ExitCode};

use clap::{Args, Parser};
use pipe::{
    cache::Home,
    config::{self, Pipeline, StageName},
    pins::{PinsError, SettleError},
    report::{Human, JsonLines, Sink},
    scheduler::{self, Offer, Options, RunError},
    selection::Request,
};

/// Of diagnostics, in columns.
const WIDTH: usize = 120;

#[derive(Parser)]
enum Arguments {
    Run {
        #[command(flatten)]
        what: What,
        #[arg(long)]
        jobs: Option<NonZeroUsize>,
        #[arg(long)]
        resources: Option<Offer>,
        #[arg(long)]
        keep_going: bool,
        #[arg(long, num_args = 1..)]
        refresh: Vec<String>,
        #[arg(long)]
        text: bool,
    },
    /// Prints the plan as one line of JSON.
    Plan {
        #[command(flatten)]
        what: What,
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

#[derive(Args)]
struct What {
    file: PathBuf,
    stages: Vec<String>,
    #[arg(long = "set")]
    overrides: Vec<String>,
    #[arg(long, num_args = 1..)]
    only: Vec<String>,
    #[arg(long, num_args = 1..)]
    from: Vec<String>,
    #[arg(long, num_args = 1..)]
    force: Vec<String>,
    #[arg(long)]
    force_all: bool,
}

fn names(names: &[String]) -> Vec<StageName> {
    names.iter().filter_map(|name| StageName::new(name)).collect()
}

/// A program that ends: what it says, and its exit code.
struct End(String, u8);

#[expect(clippy::print_stdout, reason = "the edge of a program for tests")]
fn program() -> ExitCode {
    match Arguments::parse() {
        Arguments::Bug { in_thread: false } => panic!("told to"),
        Arguments::Bug { in_thread: true } => {
            let _ = std::thread::spawn(|| panic!("told to")).join();
            ExitCode::SUCCESS
        }
        Arguments::Worker => pipe_stage::worker_main(&pipe_testkit::runners()),
        Arguments::Linger { gate, ready } => {
            let lingered = pipe_testkit::linger(&gate, &ready);
            exit(lingered.map(|()| 0).map_err(|error| End(error.to_string(), 1)))
        }
        Arguments::Run { what, jobs, resources, keep_going, refresh, text } => {
            let mut sink: Box<dyn Sink> =
                if text { Box::new(Human::stderr()) } else { Box::new(JsonLines::new(std::io::stdout())) };
            let again = format!("pipe run {}", what.file.display());
            let options = |request| {
                let resources = resources.unwrap_or_default();
                let runners = pipe_testkit::runners();
                Options { request, refresh: names(&refresh), runners, jobs, resources, keep_going, again }
            };
            exit(what.with(|pipeline, home, request| {
                scheduler::run(pipeline, home, &options(request), sink.as_mut())
                    .map(|summary| summary.outcome.exit_code())
            }))
        }
        Arguments::Plan { what } => exit(what.with(|pipeline, home, request| {
            let plan = scheduler::plan(pipeline, home, &request)?;
            println!("{}", serde_json::to_string(&plan).unwrap_or_default());
            Ok(0)
        })),
    }
}

#[expect(clippy::print_stderr, reason = "the edge of a program for tests")]
fn exit(result: Result<u8, End>) -> ExitCode {
    ExitCode::from(result.unwrap_or_else(|End(message, code)| {
        eprintln!("{message}");
        code
    }))
}

impl What {
    /// Does `work` with the pipeline, its home, and the stages that are meant.
    fn with(self, work: impl FnOnce(&Pipeline, &Home, Request) -> Result<u8, RunError>) -> Result<u8, End> {
        let overrides = self.overrides.iter().filter_map(|given| given.split_once('='));
        let overrides: Vec<_> = overrides.map(|(path, value)| (path.to_owned(), value.to_owned())).collect();
        let pipeline = config::load(&self.file, &overrides, pipe_testkit::KINDS)
            .map_err(|error| End(config::render(&error, false, WIDTH), 2))?;
        let request = Request {
            targets: names(&self.stages),
            only: names(&self.only),
            from: names(&self.from),
            force: names(&self.force),
            force_all: self.force_all,
        };
        let home = Home::locate(&pipeline.folder).map_err(RunError::from);
        home.and_then(|home| work(&pipeline, &home, request)).map_err(|error| {
            let message = match &error {
                RunError::Pipeline(error) | RunError::Settle(SettleError::File(PinsError::Invalid(error))) => {
                    config::render(error, false, WIDTH)
                }
                error => explained(error),
            };
            End(message, error.exit_code())
        })
    }
}

/// An error of the machine, with its causes and what to do.
fn explained(error: &RunError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!("\nbecause: {error}");
        cause = error.source();
    }
    text + &error.help().map_or_else(String::new, |help| format!("\n{help}"))
}
