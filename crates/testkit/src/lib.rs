//! Fake kinds, temporary projects and meeting points for tests of the engine. Nothing that users run depends on it.

mod gate;
mod kinds;
mod project;

pub use gate::{Arrived, Gate, linger};
pub use kinds::{KINDS, LINGER_SUBCOMMAND, MEETINGS, runners};
pub use project::{Project, Ran, Running};
