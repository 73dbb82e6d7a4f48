//! See `pipe_hf::fuzzing::model_config`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| pipe_hf::fuzzing::model_config(bytes));
