//! Hugging Face directories: config.json, sharded safetensors, PEFT adapters.
