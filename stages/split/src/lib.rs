//! The kind split.
