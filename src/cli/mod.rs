//! The command line: arguments in, text and exit codes out. One file a subcommand.
//!
//! Data goes to standard output, everything said on the way to standard error. With `--format json`, standard output
//! holds JSON only.

mod answering;
mod bug;
mod cache;
mod candidates;
mod chat;
mod check;
mod completions;
mod count;
mod dag;
mod doctor;
mod exit;
mod explain;
mod get;
mod init;
mod log;
mod man;
mod pipeline;
mod plan;
mod recorded;
mod reproduce;
mod run;
mod runs;
mod said;
mod schema;
mod selection;
mod serve;
mod share;
mod show;
mod table;
mod typed;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};

pub use bug::guard;
pub use exit::{CliError, Exit};

/// Declarative machine-learning pipelines: content-hashed, cached, reproducible bit for bit.
///
/// A pipeline is a YAML file of stages, each of some kind, with a configuration and inputs. `pipe run FILE` brings them
/// up to date: it runs what changed and takes the rest from the cache.
#[derive(Parser)]
#[command(name = "pipe", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Exit codes: 0 done; 1 a stage failed or was stopped, or damage was found; 2 wrong usage or an invalid pipeline;
3 the machine lacks something; 70 a bug in pipe.

The cache is $PIPE_HOME, or `.pipe` in the nearest folder above the pipeline that has one, or beside the pipeline.";

/// The same for the manual.
const EXIT_CODES: &[(&str, &str)] = &[
    ("0", "Everything asked for is there."),
    ("1", "A stage failed, the run was stopped, or `pipe cache verify` found damage."),
    ("2", "The command line or the pipeline is wrong."),
    ("3", "The machine lacks something: a program, memory, space, a permission."),
    ("70", "A bug in pipe. Please report it with what was printed."),
];

/// The environment variables that the program looks at.
const VARIABLES: &[(&str, &str)] = &[
    ("PIPE_HOME", "The folder of the cache, instead of `.pipe` in or above the pipeline's folder."),
    ("PIPE_TORCH", "The program pipe-torch, if it does not lie beside pipe."),
    ("PIPE_GPU_LOCKS", "The folder in which the runs of a machine agree on its GPUs, instead of /tmp/pipe-gpus."),
    ("HF_TOKEN, HF_HOME", "The token for gated models, and the folder that holds it otherwise."),
    ("NO_COLOR", "If set, nothing is coloured."),
];

#[derive(Subcommand)]
enum Command {
    /// Write a first pipeline, which runs as it is
    Init(init::Init),
    /// Bring a pipeline's stages up to date, running only what changed
    Run(run::Run),
    /// Say what `run` would do, and why
    Plan(plan::Plan),
    /// Explain one stage: what goes into it, and why it would run
    Explain(explain::Explain),
    /// Show the graph of stages as text, Mermaid or DOT
    Dag(dag::Dag),
    /// Check a pipeline file
    Check(check::Check),
    /// Print the JSON Schema of pipeline files
    Schema(schema::Schema),
    /// List recorded runs, show one, or compare two
    Runs(runs::Runs),
    /// Show the log of a stage's last attempt
    Log(log::Log),
    /// Show what a stage made: a sample as the model sees it, how long samples are, the files of anything else
    Show(show::Show),
    /// Copy a stage's artifact out of the cache
    Get(get::Get),
    /// Talk with a model that a stage made, or compare it with its base
    Chat(chat::Chat),
    /// Let a model answer other programs, which speak OpenAI's protocol
    Serve(serve::Serve),
    /// Put a run into one file, for others to make it again
    Share(share::Share),
    /// Run what a bundle holds, and compare it with the record
    Reproduce(reproduce::Reproduce),
    /// Look after what is stored: verify it, remove what nothing needs, say what takes the space
    Cache(cache::Cache),
    /// Say what this machine has and which kinds it can run
    Doctor(doctor::Doctor),
    /// Print a script that completes commands, files and stages in a shell
    Completions(completions::Completions),
    /// Write the manual pages
    Man(man::Man),
    /// Run one job (started by the scheduler)
    #[command(hide = true)]
    Worker,
}

/// How results are written to standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Runs the program.
pub fn main() -> ExitCode {
    guard(|| {
        completions::answer();
        match dispatch(Arguments::parse()) {
            Ok(exit) => exit.into(),
            Err(error) => error.report().into(),
        }
    })
}

fn dispatch(arguments: Arguments) -> Result<Exit, CliError> {
    match arguments.command {
        Command::Init(command) => command.execute(),
        Command::Run(command) => command.execute(),
        Command::Plan(command) => command.execute(),
        Command::Explain(command) => command.execute(),
        Command::Dag(command) => command.execute(),
        Command::Check(command) => command.execute(),
        Command::Schema(command) => command.execute(),
        Command::Runs(command) => command.execute(),
        Command::Log(command) => command.execute(),
        Command::Show(command) => command.execute(),
        Command::Get(command) => command.execute(),
        Command::Chat(command) => command.execute(),
        Command::Serve(command) => command.execute(),
        Command::Share(command) => command.execute(),
        Command::Reproduce(command) => command.execute(),
        Command::Cache(command) => command.execute(),
        Command::Doctor(command) => command.execute(),
        Command::Completions(command) => command.execute(),
        Command::Man(command) => command.execute(),
        Command::Worker => Ok(Exit::Code(pipe_stage::worker_main(&crate::registry::runners()))),
    }
}
