//! The kind evaluate.
