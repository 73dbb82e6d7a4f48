//! `pipe-torch`: the worker program for the kinds that need libtorch.
//!
//! Started by `pipe`, which itself never loads libtorch. Subcommands: `worker` runs one job, `chat` answers questions
//! (for `pipe chat` and `pipe serve`), `probe` prints as JSON what this machine offers (for `pipe doctor`).

mod chat;
mod probe;

use std::process::ExitCode;

use pipe_stage::{Runner, WORKER_SUBCOMMAND, worker_main};

/// The kinds that this program runs.
const RUNNERS: &[Runner] = &[Runner::of::<stage_train::Train>(), Runner::of::<stage_evaluate::Evaluate>()];

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "the edge of the program")]
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [WORKER_SUBCOMMAND] => worker_main(RUNNERS),
        [pipe_chat::SUBCOMMAND] => chat::main(),
        ["probe"] => {
            println!("{}", probe::report());
            ExitCode::SUCCESS
        }
        ["--version"] => {
            println!("pipe-torch {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("pipe-torch is the worker that `pipe` starts for stages that train; run `pipe` instead");
            ExitCode::from(2)
        }
    }
}
