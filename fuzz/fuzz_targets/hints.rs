//! See `pipe::fuzzing::hints`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe::fuzzing::hints(bytes));
