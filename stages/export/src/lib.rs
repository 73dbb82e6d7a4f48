//! The kind export.
