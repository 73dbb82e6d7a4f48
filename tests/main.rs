//! The integration tests of `pipe`, as one binary: a module a subject.
#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod cli;
mod command;
mod config;
mod keys;
mod tidy;
