//! Tests of what the process says, on a tiny model.
