//! The engine, told as stories: run, change something, run again, and see what ran.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bug;
mod cleanup;
mod failure;
mod reasons;
mod records;
mod rerun;
mod stop;
mod together;

use pipe_testkit::Project;

/// A project with the pipeline `text`.
fn project(text: &str) -> Project {
    Project::new(env!("CARGO_BIN_EXE_fake-pipe"), text).unwrap()
}
