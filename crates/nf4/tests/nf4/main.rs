//! The codec against bitsandbytes' own bytes, and against its definition.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

mod properties;
mod references;
mod tensors;
