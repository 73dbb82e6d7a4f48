//! Pipeline files: YAML text to a [`Pipeline`], with every problem at its place.

mod error;
mod model;
mod source;

pub use error::ConfigError;
pub use model::{InputRef, Pipeline, StageName, StageSpec};
pub use source::{Location, Source};
