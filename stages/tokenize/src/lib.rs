//! The kind tokenize.
