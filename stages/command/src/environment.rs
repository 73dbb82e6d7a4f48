//! What a command sees of the environment. Nothing that is not named here or in `env` reaches it.

use std::{collections::BTreeMap, ffi::OsString, path::PathBuf};

use pipe_stage::Context;

use crate::config::Config;

/// Passed on as the worker sees them: where programs, libraries and the user's files are; the language (`C.UTF-8`), time
/// zone (`UTC`) and folder for temporary files of every worker; the GPUs and threads that the scheduler gives it.
const PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "LD_LIBRARY_PATH",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "CUDA_VISIBLE_DEVICES",
    "CUDA_DEVICE_ORDER",
    "CUBLAS_WORKSPACE_CONFIG",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "RAYON_NUM_THREADS",
];

/// Set to the same value for every command.
const FIXED: &[(&str, &str)] = &[
    // The order of sets and the folders `__pycache__` would differ from run to run.
    ("PYTHONHASHSEED", "0"),
    ("PYTHONDONTWRITEBYTECODE", "1"),
    // What is printed is in the log at once, and in order.
    ("PYTHONUNBUFFERED", "1"),
];

/// Names the file into which the command may write its figures.
const METRICS: &str = "PIPE_METRICS";

/// Names the folder that a failed or killed attempt leaves to the next one.
const RESUME: &str = "PIPE_RESUME";

/// The environment of the command.
pub(crate) fn of(config: &Config, context: &Context) -> BTreeMap<OsString, OsString> {
    let mut environment: BTreeMap<OsString, OsString> = FIXED.iter().map(|(n, v)| (n.into(), v.into())).collect();
    for name in PASSED.iter().copied().chain(config.env.inherited()) {
        if let Some(value) = std::env::var_os(name) {
            environment.insert(name.into(), value);
        }
    }
    environment.extend(config.env.set().map(|(name, value)| (name.into(), value.into())));
    environment.insert(METRICS.into(), metrics_file(context).into());
    environment.insert(RESUME.into(), context.resume().into());
    environment
}

/// Beside the folder that the command runs in.
pub(crate) fn metrics_file(context: &Context) -> PathBuf {
    context.work().with_file_name("metrics.jsonl")
}
