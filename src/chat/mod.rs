//! Conversations with a model that a process of its own holds: `pipe` itself never loads libtorch.

mod worker;

pub use worker::{ChatError, Hear, Worker};
