//! See `pipe_hf::fuzzing::safetensors`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe_hf::fuzzing::safetensors(bytes));
