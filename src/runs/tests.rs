//! Tests of run records.
