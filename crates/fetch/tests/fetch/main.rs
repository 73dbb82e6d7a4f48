//! Fetching from servers on loopback that speak the hubs' protocols, well and badly.
#![allow(clippy::unwrap_used, missing_docs, reason = "a test fails by panicking")]

#[path = "../hub/mod.rs"]
mod hub;

mod bucket;
mod cache;
mod harness;
mod misbehaving;
mod refused;
mod resume;
mod whole;
