//! NF4 with double quantisation, byte for byte as bitsandbytes, on the CPU.
