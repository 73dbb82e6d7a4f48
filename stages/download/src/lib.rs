//! The kind download.
