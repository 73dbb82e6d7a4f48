//! The engine, told as stories: run, change something, run again, and see what ran.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod bug;
mod cleanup;
mod copies;
mod failure;
mod keep_going;
mod pins;
mod reasons;
mod records;
mod rerun;
mod resources;
mod retries;
mod selection;
mod stop;
mod together;

use pipe_testkit::{Gate, Project};

/// A project with the pipeline `text`.
fn project(text: &str) -> Project {
    Project::new(env!("CARGO_BIN_EXE_fake-pipe"), text).unwrap()
}

/// A stage of the kind `write` that stands at `gate` before it writes its name.
fn gated(name: &str, gate: &Gate, more: &str) -> String {
    let folder = gate.folder().display();
    format!("  {name}: {{ kind: write, with: {{ text: {name}, gate: '{folder}' }}{more} }}\n")
}
