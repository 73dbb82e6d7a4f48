//! The C++ shim's functions: declarations, and safe forms of the global switches.
#![expect(unsafe_code, reason = "foreign functions")]

use std::{
    ffi::{CStr, c_char, c_void},
    mem::MaybeUninit,
};

use tch::Tensor;

use crate::{Error, view::MOST_DIMENSIONS};

/// Room for a message; longer ones are cut.
const MESSAGE_BYTES: usize = 4096;

/// Layout shared with `struct PipeMemory` of the shim.
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct RawMemory {
    pub(crate) allocated_bytes: i64,
    pub(crate) allocated_peak_bytes: i64,
    pub(crate) reserved_bytes: i64,
    pub(crate) reserved_peak_bytes: i64,
}

/// Layout shared with `struct PipeTensor` of the shim.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub(crate) struct RawTensor {
    pub(crate) kind: i32,
    pub(crate) device: i32,
    pub(crate) contiguous: i32,
    pub(crate) dimensions: i32,
    pub(crate) address: *mut c_void,
    pub(crate) sizes: [i64; MOST_DIMENSIONS],
    pub(crate) strides: [i64; MOST_DIMENSIONS],
}

unsafe extern "C" {
    fn pipe_shim_describe(tensor: *const c_void, out: *mut RawTensor);
    fn pipe_shim_set_deterministic(on: bool, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_set_tf32(allow: bool, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_set_cudnn_benchmark(on: bool, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_cuda_memory(device: i32, memory: *mut RawMemory, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_cuda_reset_peak(device: i32, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_cuda_empty_cache(message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_page_locked(bytes: i64, result: *mut *mut c_void, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_cuda_limit(fraction: f64, message: *mut c_char, capacity: usize) -> i32;
    fn pipe_shim_flash_forward(
        query: *const c_void,
        key: *const c_void,
        value: *const c_void,
        starts: *const c_void,
        longest: i64,
        scale: f64,
        results: *mut *mut c_void,
        message: *mut c_char,
        capacity: usize,
    ) -> i32;
    fn pipe_shim_flash_backward(
        gradient: *const c_void,
        query: *const c_void,
        key: *const c_void,
        value: *const c_void,
        forward: *const *const c_void,
        starts: *const c_void,
        longest: i64,
        scale: f64,
        results: *mut *mut c_void,
        message: *mut c_char,
        capacity: usize,
    ) -> i32;
}

/// Makes libtorch use only algorithms that give the same bytes every time, and fail where it has none.
///
/// Sets `CUBLAS_WORKSPACE_CONFIG` in the environment of the process where the user has not: call it at the start,
/// before other threads read the environment.
///
/// # Errors
/// If libtorch refuses.
pub fn set_deterministic(on: bool) -> Result<(), Error> {
    // SAFETY: the buffer is writable for the length given with it.
    call(|message, capacity| unsafe { pipe_shim_set_deterministic(on, message, capacity) })
}

/// Whether float32 matrix products on CUDA may round their operands to TF32.
///
/// # Errors
/// If libtorch refuses.
pub fn set_tf32(allow: bool) -> Result<(), Error> {
    // SAFETY: the buffer is writable for the length given with it.
    call(|message, capacity| unsafe { pipe_shim_set_tf32(allow, message, capacity) })
}

/// Whether cuDNN may time its algorithms and choose the fastest.
///
/// # Errors
/// If libtorch refuses.
pub fn set_cudnn_benchmark(on: bool) -> Result<(), Error> {
    // SAFETY: the buffer is writable for the length given with it.
    call(|message, capacity| unsafe { pipe_shim_set_cudnn_benchmark(on, message, capacity) })
}

/// What a tensor is.
pub(crate) fn describe(tensor: &Tensor) -> RawTensor {
    let mut out = MaybeUninit::uninit();
    // SAFETY: the tensor is borrowed for the call, and `out` has the shim's layout.
    unsafe { pipe_shim_describe(raw(tensor), out.as_mut_ptr()) };
    // SAFETY: the shim has written every member.
    unsafe { out.assume_init() }
}

pub(crate) fn cuda_memory(device: i32) -> Result<RawMemory, Error> {
    let mut memory = RawMemory::default();
    // SAFETY: `memory` has the shim's layout and outlives the call; the buffer is writable for its length.
    call(|message, capacity| unsafe { pipe_shim_cuda_memory(device, &raw mut memory, message, capacity) })?;
    Ok(memory)
}

pub(crate) fn cuda_reset_peak(device: i32) -> Result<(), Error> {
    // SAFETY: the buffer is writable for the length given with it.
    call(|message, capacity| unsafe { pipe_shim_cuda_reset_peak(device, message, capacity) })
}

pub(crate) fn cuda_empty_cache() -> Result<(), Error> {
    // SAFETY: the buffer is writable for the length given with it.
    call(|message, capacity| unsafe { pipe_shim_cuda_empty_cache(message, capacity) })
}

/// Bytes of the host in memory from which and to which a device copies by itself, `[bytes]`, not written. It goes back to
/// libtorch only when libtorch's own copies are through.
pub(crate) fn page_locked(bytes: i64) -> Result<Tensor, Error> {
    let mut result = std::ptr::null_mut();
    // SAFETY: `result` has room for a pointer, and the buffer is writable for its length.
    call(|message, capacity| unsafe { pipe_shim_page_locked(bytes, &raw mut result, message, capacity) })?;
    Ok(owned(result))
}

pub(crate) fn cuda_limit(fraction: f64) -> Result<(), Error> {
    // SAFETY: the buffer is writable for the length given with it.
    call(|message, capacity| unsafe { pipe_shim_cuda_limit(fraction, message, capacity) })
}

/// Output, logarithms of sums, and two tensors for the backward pass.
pub(crate) fn flash_forward(
    [query, key, value, starts]: [&Tensor; 4],
    longest: i64,
    scale: f64,
) -> Result<[Tensor; 4], Error> {
    let mut results = [std::ptr::null_mut(); 4];
    let out = results.as_mut_ptr();
    // SAFETY: the tensors are borrowed for the call, `out` has room for four pointers, and the buffer is writable for
    // its length.
    call(|message, capacity| unsafe {
        pipe_shim_flash_forward(raw(query), raw(key), raw(value), raw(starts), longest, scale, out, message, capacity)
    })?;
    Ok(results.map(owned))
}

/// Gradients of query, key and value; `forward` is what [`flash_forward`] gave.
pub(crate) fn flash_backward(
    [gradient, query, key, value, starts]: [&Tensor; 5],
    forward: &[Tensor; 4],
    longest: i64,
    scale: f64,
) -> Result<[Tensor; 3], Error> {
    let (gradient, query, key, value, starts) = (raw(gradient), raw(query), raw(key), raw(value), raw(starts));
    let forward = forward.each_ref().map(raw);
    let mut results = [std::ptr::null_mut(); 3];
    let (saved, out) = (forward.as_ptr(), results.as_mut_ptr());
    // SAFETY: the tensors are borrowed for the call, `saved` has four pointers and `out` room for three, and the
    // buffer is writable for its length.
    call(|message, capacity| unsafe {
        pipe_shim_flash_backward(gradient, query, key, value, saved, starts, longest, scale, out, message, capacity)
    })?;
    Ok(results.map(owned))
}

/// tch's handle is a pointer to `at::Tensor`.
fn raw(tensor: &Tensor) -> *const c_void {
    tensor.as_ptr().cast()
}

fn owned(pointer: *mut c_void) -> Tensor {
    // SAFETY: the shim filled it with a new `at::Tensor`, which nobody else frees.
    unsafe { Tensor::from_ptr(pointer.cast()) }
}

/// Runs a function of the shim and turns its message into an error.
fn call(function: impl FnOnce(*mut c_char, usize) -> i32) -> Result<(), Error> {
    let mut buffer = [0_u8; MESSAGE_BYTES];
    if function(buffer.as_mut_ptr().cast(), buffer.len()) == 0 {
        return Ok(());
    }
    let message = CStr::from_bytes_until_nul(&buffer).map(|text| text.to_string_lossy().into_owned());
    Err(Error::Torch { message: message.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn switches_are_taken() {
        set_deterministic(true).unwrap();
        set_tf32(true).unwrap();
        set_tf32(false).unwrap();
        set_cudnn_benchmark(true).unwrap();
        // The shim runs on the C side's environment, which Rust reads too.
        assert!(std::env::var("CUBLAS_WORKSPACE_CONFIG").is_ok());
    }

    #[test]
    fn an_exception_becomes_a_message() {
        let no_device = 127;
        let error = cuda_memory(no_device).unwrap_err().to_string();
        assert!(error.contains("not loaded") || error.contains("device"), "{error}");
        assert!(!error.contains("Exception raised from"), "no backtrace: {error}");
    }
}
