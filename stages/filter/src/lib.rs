//! The kind filter.
