//! The worker's side of the protocol: one job in, events out, an exit code.

use std::{
    io::Read,
    process::ExitCode,
    sync::{Arc, atomic::AtomicBool},
};

use crate::{Context, Event, Failure, FailureClass, Job, PROTOCOL, Runner, Status, crash};

/// The subcommand under which both programs run a job.
pub const WORKER_SUBCOMMAND: &str = "worker";

/// Reads one [`Job`] from standard input, runs it, and writes [`Event`]s to standard output.
///
/// The process ends with its parent, and a termination signal sets [`Context::cancelled`].
pub fn worker_main(runners: &[Runner]) -> ExitCode {
    die_with_parent();
    let cancelled = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        // Failing to register only means that the signal ends the process at once.
        let _ = signal_hook::flag::register(signal, Arc::clone(&cancelled));
    }
    let job = match read_job() {
        Ok(job) => job,
        Err(message) => {
            let status = Status::Failed { class: FailureClass::Environment, chain: vec![message], hint: None };
            if let Ok(line) = serde_json::to_string(&Event::Result(status)) {
                let _ = std::io::Write::write_all(&mut std::io::stdout(), format!("{line}\n").as_bytes());
            }
            return ExitCode::from(3);
        }
    };
    crash::point("worker.job-read");
    let context = Context::new(job, Box::new(std::io::stdout()), cancelled);
    let result = match runners.iter().find(|runner| runner.kind == context.job().kind) {
        Some(runner) => runner.run(&context),
        None => Err(Failure::environment(format!("this worker does not know the kind `{}`", context.job().kind))
            .hint("pipe and its worker are of different builds: install them together")),
    };
    let (status, code) = match result {
        Ok(()) => (Status::Done, 0),
        Err(failure) => {
            let code = if failure.class() == FailureClass::Environment { 3 } else { 1 };
            (failure.into_status(), code)
        }
    };
    crash::point("worker.before-result");
    context.send(&Event::Result(status));
    crash::point("worker.after-result");
    ExitCode::from(code)
}

fn read_job() -> Result<Job, String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text).map_err(|error| format!("cannot read the job description: {error}"))?;
    let job: Job = serde_json::from_str(&text).map_err(|error| format!("cannot read the job description: {error}"))?;
    if job.protocol != PROTOCOL {
        return Err(format!("the scheduler speaks protocol {}, this worker speaks {PROTOCOL}", job.protocol));
    }
    Ok(job)
}

/// Has the kernel end this process with its parent, or with the thread that started it. A worker must never outlive its
/// scheduler: it would go on writing beside the next run's worker.
pub fn die_with_parent() {
    let parent = rustix::process::getppid();
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL));
    // The parent may have died before the line above took effect.
    if rustix::process::getppid() != parent {
        std::process::exit(1);
    }
}
