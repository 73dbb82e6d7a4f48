//! What a worker sees of the environment: a short list, the same for every kind, what its kind needs to reach other
//! machines ([`pipe_stage::Kind::SURROUNDINGS`]), and what its stage declares ([`pipe_stage::Kind::environment`]).
//!
//! A variable that could change a byte of an artifact must be declared by the stage: only that is in the key.

use std::{path::Path, process::Command};

use pipe_stage::crash;

/// Passed on as they are, where they are set.
const PASSED: &[&str] = &[
    // finding programs and settings
    "PATH",
    "HOME",
    // finding libtorch and the GPU's driver
    "LIBTORCH",
    "LD_LIBRARY_PATH",
    "CUDA_HOME",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    // where compiled kernels are kept
    "PIPE_KERNEL_CACHE",
    "XDG_CACHE_HOME",
    // how much is logged
    "RUST_BACKTRACE",
    "RUST_LOG",
];

/// Set to the same value everywhere.
const FIXED: &[(&str, &str)] = &[
    ("LANG", "C.UTF-8"),
    ("LC_ALL", "C.UTF-8"),
    ("TZ", "UTC"),
    // cuBLAS gives the same bits for the same work only with a fixed workspace.
    ("CUBLAS_WORKSPACE_CONFIG", ":4096:8"),
    // Threads of libtorch that wait for each other sleep instead of spinning: where other programs want the cores too,
    // an update on the CPU is several times faster. They spin for some ten microseconds first: the next of many small
    // operations begins sooner than a sleeping thread wakes.
    ("OMP_WAIT_POLICY", "passive"),
    ("GOMP_SPINCOUNT", "10000"),
];

/// Names the folder of the attempt, which is removed with it.
pub(super) const TEMPORARY: &str = "TMPDIR";

/// Gives `command` the environment of every worker, the variables `named` by its kind or stage, and nothing else. `temporary`
/// is its folder for temporary files. A test may have the worker of `stage` die: see [`pipe_stage::crash`].
pub(super) fn declare<'a>(command: &mut Command, stage: &str, named: impl Iterator<Item = &'a str>, temporary: &Path) {
    worker_environment(command);
    pass_on(command, named);
    command.env(TEMPORARY, temporary);
    if let Some(at) = crash::for_worker(stage) {
        command.env(crash::CRASH_AT, at);
    }
}

/// Gives `command` the environment of every worker and nothing else.
pub(crate) fn worker_environment(command: &mut Command) {
    command.env_clear().envs(FIXED.iter().copied());
    pass_on(command, PASSED.iter().copied());
}

fn pass_on<'a>(command: &mut Command, names: impl Iterator<Item = &'a str>) {
    for name in names {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_passed_on_and_nothing_else() {
        // Cargo sets CARGO_MANIFEST_DIR for every test.
        assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
        let mut command = Command::new("true");
        declare(&mut command, "a", ["CARGO_PKG_NAME", "CERTAINLY_NOT_SET"].into_iter(), Path::new("/scratch"));
        let names: Vec<_> = command.get_envs().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
        assert!(names.iter().any(|name| name == "PATH"));
        assert!(names.iter().any(|name| name == "CARGO_PKG_NAME"));
        for name in &names {
            assert!(
                PASSED.contains(&name.as_str())
                    || FIXED.iter().any(|(fixed, _)| fixed == name)
                    || [TEMPORARY, "CARGO_PKG_NAME"].contains(&name.as_str()),
                "{name} is passed on"
            );
        }
    }
}
