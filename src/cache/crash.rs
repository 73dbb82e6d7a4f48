//! Crash points for tests: a child process of the test aborts where its environment says.

use std::{os::unix::process::ExitStatusExt, path::Path, process::Command};

/// Aborts if this is the crash point that the environment names.
pub(super) fn point(name: &str) {
    if std::env::var_os("PIPE_TEST_CRASH").is_some_and(|wanted| wanted == name) {
        std::process::abort();
    }
}

/// Runs one test of this binary in a child that crashes at `point`. Says whether it died by the abort.
pub(super) fn child(test: &str, point: &str, folder: &Path) -> bool {
    let Ok(program) = std::env::current_exe() else { return false };
    let output = Command::new(program)
        .args([test, "--exact"])
        .env("PIPE_TEST_CRASH", point)
        .env("PIPE_TEST_FOLDER", folder)
        .output();
    output.is_ok_and(|output| output.status.signal() == Some(6))
}
