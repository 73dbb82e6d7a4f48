//! See `pipe::fuzzing::job`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe::fuzzing::job(bytes));
