//! The kind quantize.
