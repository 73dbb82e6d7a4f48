//! The kind train.
