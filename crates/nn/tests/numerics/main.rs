//! The model against stored references, finite differences, and itself.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test may panic, and says how near it came")]

mod fixtures;
mod forward;
mod generation;
mod gradients;
mod invariance;
mod nonfinite;
mod shapes;
#[allow(dead_code, reason = "shared with the unit tests")]
#[path = "../../src/testing.rs"]
mod testing;
