//! See `pipe::fuzzing::event`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe::fuzzing::event(bytes));
