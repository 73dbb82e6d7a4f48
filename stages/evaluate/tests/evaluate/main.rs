//! The stage as the engine runs it, against Transformers and PEFT.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod config;
#[cfg(feature = "torch")]
mod run;
