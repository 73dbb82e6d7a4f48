//! The foreign-function edge: libtorch's C++ that tch does not bind, and the CUDA library at run time.
//!
//! The only crate of the project with `unsafe` code. A program links libtorch's CPU library alone; [`load_cuda`] adds
//! CUDA where a driver is present, so that one binary serves both. Call it, and [`set_deterministic`], before the
//! first tensor: libtorch looks once for either.

mod cublas;
mod cuda;
mod element;
mod error;
mod flash;
mod host_stack;
mod launch;
mod memory;
mod nvml;
mod nvrtc;
mod out_of_memory;
mod prepare;
mod readback;
mod shim;
mod staging;
mod stream;
#[cfg(test)]
mod testing;
mod view;

pub mod ops;
pub mod philox;

pub use cuda::{CudaStatus, load_cuda};
pub use error::Error;
pub use flash::{Attended, Packing, flash_attention, flash_attention_backward};
pub use host_stack::HostStack;
pub use memory::{CudaMemory, cuda_memory, empty_cuda_cache, limit_cuda_memory, reset_cuda_peak};
pub use nvml::{NvmlDevice, NvmlMemory};
pub use out_of_memory::OutOfMemory;
pub use prepare::{Preparation, prepare};
pub use readback::{Readback, upload, upload_tensor};
pub use shim::{set_cudnn_benchmark, set_deterministic, set_tf32};
pub use staging::fill_tensor;

/// Sets how many threads one operation on the CPU uses. Results depend on it in the last bits, so it stands in
/// checkpoints.
pub fn set_threads(threads: usize) {
    tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
}

/// How many threads one operation on the CPU uses.
pub fn threads() -> usize {
    usize::try_from(tch::get_num_threads()).unwrap_or(1)
}
