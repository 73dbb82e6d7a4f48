//! Merging against a plain loop in float64, and what does not fit together.
#![allow(clippy::unwrap_used, reason = "a failed test may panic")]

mod model;
mod refusals;
mod values;
