//! What libtorch's CUDA allocator holds.

use crate::{Error, shim};

/// Figures of libtorch's caching allocator for one device, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CudaMemory {
    /// In tensors now.
    pub allocated_bytes: u64,
    /// The most that was in tensors since the start or the last [`reset_cuda_peak`].
    pub allocated_peak_bytes: u64,
    /// Taken from the driver now: tensors and the cache.
    pub reserved_bytes: u64,
    /// The most that was taken from the driver.
    pub reserved_peak_bytes: u64,
}

/// The allocator's figures for device `device`.
///
/// # Errors
/// If CUDA is not loaded or there is no such device.
pub fn cuda_memory(device: usize) -> Result<CudaMemory, Error> {
    let raw = shim::cuda_memory(index(device)?)?;
    let bytes = |value: i64| u64::try_from(value).unwrap_or(0);
    Ok(CudaMemory {
        allocated_bytes: bytes(raw.allocated_bytes),
        allocated_peak_bytes: bytes(raw.allocated_peak_bytes),
        reserved_bytes: bytes(raw.reserved_bytes),
        reserved_peak_bytes: bytes(raw.reserved_peak_bytes),
    })
}

/// Keeps what the allocator takes from the driver to this share of a device's memory, in (0, 1]: what goes beyond it fails as
/// if the device had no more. Call it before the first tensor on a device.
///
/// # Errors
/// If CUDA is not loaded or libtorch refuses.
pub fn limit_cuda_memory(fraction: f64) -> Result<(), Error> {
    shim::cuda_limit(fraction)
}

/// Starts the peaks of device `device` afresh, at what is held now.
///
/// # Errors
/// If CUDA is not loaded or there is no such device.
pub fn reset_cuda_peak(device: usize) -> Result<(), Error> {
    shim::cuda_reset_peak(index(device)?)
}

/// Gives the memory that no tensor uses back to the driver, on all devices.
///
/// # Errors
/// If CUDA is not loaded.
pub fn empty_cuda_cache() -> Result<(), Error> {
    shim::cuda_empty_cache()
}

fn index(device: usize) -> Result<i32, Error> {
    i8::try_from(device).map(i32::from).map_err(|_| Error::Torch { message: format!("{device} is no device index") })
}
