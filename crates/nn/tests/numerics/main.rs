//! The model against stored references, finite differences, and itself.
#![allow(clippy::unwrap_used, reason = "a test may panic")]

mod fixtures;
mod forward;
mod gradients;
mod invariance;
mod nonfinite;
mod shapes;
