//! The engine of `pipe` and its command line.
//!
//! A pipeline file becomes a [`config::Pipeline`], that a graph, that with the records of the [`cache`] a plan, and the
//! scheduler runs what is left. See ARCHITECTURE.md for the map.

pub mod bundle;
pub mod cache;
pub mod chat;
pub mod cli;
pub mod config;
pub mod foresight;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod graph;
pub mod pins;
pub mod plan;
pub mod registry;
pub mod report;
pub mod reproduce;
pub mod runs;
pub mod scheduler;
pub mod selection;
pub mod serve;
