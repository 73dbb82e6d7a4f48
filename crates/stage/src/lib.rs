//! The contract between the engine and the kinds of stage.
//!
//! A kind is declared by [`Kind`] (name, version, configuration, inputs, outputs: what the engine needs in order to
//! check, hash and schedule it) and implemented by [`Stage`] (the work, done in a worker process). The engine sees
//! both only in their erased forms, [`Declaration`] and [`Runner`], which the registry lists.
//!
//! This crate knows neither the engine nor libtorch.

mod context;
pub mod crash;
mod declaration;
mod digest;
mod event;
mod failure;
mod job;
mod kind;
pub mod manifest;
mod memory;
pub mod name;
mod quantity;
mod worker;

pub use context::Context;
pub use declaration::{Declaration, ParsedConfig, Runner};
pub use digest::Digest;
pub use event::{Event, Level, Status};
pub use failure::{FULL_DISK, Failure, FailureClass, chain, is_full_disk};
pub use job::{Artifact, Job, PROTOCOL, Resources};
pub use kind::{EXECUTION_ONLY, Form, Kind, Output, Port, Problems, Program, Reference, Stage, UserFile, Validate};
pub use memory::{Foreseen, MemoryPart, MemoryQuery, MemoryRefusal, MemoryReport};
pub use quantity::{MEMORY_PATTERN, Refused, parse_bytes};
pub use worker::{WORKER_SUBCOMMAND, die_with_parent, worker_main};
