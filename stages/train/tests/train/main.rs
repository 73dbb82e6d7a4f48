//! The stage as the engine runs it: a job in, events and an artifact out.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod config;
#[cfg(feature = "torch")]
mod evaluation;
#[cfg(feature = "torch")]
mod failures;
#[cfg(feature = "torch")]
mod harness;
#[cfg(feature = "torch")]
mod resume;
#[cfg(feature = "torch")]
mod trajectories;
