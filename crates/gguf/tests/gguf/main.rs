//! Files and codecs, byte for byte beside those of the Python package gguf.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod damaged;
mod golden;
