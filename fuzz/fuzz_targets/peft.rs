//! See `pipe_hf::fuzzing::peft`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe_hf::fuzzing::peft(bytes));
