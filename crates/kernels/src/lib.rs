//! The foreign-function edge: libtorch's C++ that tch does not bind, and the CUDA library at run time.
