//! The work of an `evaluate` stage.
