//! What a run survives, told as disasters: what happens, what a person reads, and what is left.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod changing;
mod clock;
mod damage;
mod inherited;
mod large;
mod left_behind;
mod names;
mod output;
mod points;
mod surroundings;

use pipe_testkit::{Gate, Project};

/// A project with the pipeline `text`.
fn project(text: &str) -> Project {
    Project::in_memory(env!("CARGO_BIN_EXE_fake-pipe"), text).unwrap()
}

/// A project with one stage, `wild`, that does `trick` at a gate and then writes a text.
fn wild(trick: &str) -> (Project, Gate) {
    let project = project("name: wild\nstages: {}\n");
    let gate = project.gate("gate").unwrap();
    let folder = gate.folder().display();
    let with = format!("{{ text: wild, trick: {trick}, gate: '{folder}' }}");
    project.write("pipeline.yaml", &format!("name: wild\nstages:\n  wild: {{ kind: wild, with: {with} }}\n")).unwrap();
    (project, gate)
}
