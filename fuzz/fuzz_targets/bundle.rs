//! See `pipe::fuzzing::bundle`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe::fuzzing::bundle(bytes));
