//! The work of a `train` stage.
