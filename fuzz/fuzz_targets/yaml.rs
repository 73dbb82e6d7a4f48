//! See `pipe::fuzzing::yaml`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe::fuzzing::yaml(bytes));
