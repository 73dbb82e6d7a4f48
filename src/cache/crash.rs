//! Crash points of the engine, and for unit tests a child process that dies at one.

pub(crate) use pipe_stage::crash::point;

/// Runs one test of this binary in a child that dies at `point`, and says whether it did.
#[cfg(test)]
pub(super) fn child(test: &str, point: &str, folder: &std::path::Path) -> bool {
    use std::os::unix::process::ExitStatusExt;

    let Ok(program) = std::env::current_exe() else { return false };
    let output = std::process::Command::new(program)
        .args([test, "--exact"])
        .env(pipe_stage::crash::CRASH_AT, point)
        .env("PIPE_TEST_FOLDER", folder)
        .output();
    output.is_ok_and(|output| output.status.signal() == Some(9))
}
