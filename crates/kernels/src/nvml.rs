//! What the driver says about a card's memory, through its management library (NVML), where there is one.

use std::{ffi::OsStr, fmt};

use nvml_wrapper::{Device, Nvml, enums::device::UsedGpuMemory};

use crate::Error;

/// The name that a driver without development files has.
const LIBRARY: &str = "libnvidia-ml.so.1";

/// Figures of one card, in bytes. They count every process, unlike [`CudaMemory`](crate::CudaMemory).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NvmlMemory {
    /// In use on the card.
    pub used_bytes: u64,
    /// The card's memory.
    pub total_bytes: u64,
    /// In use by this process, where the driver tells.
    pub process_bytes: Option<u64>,
}

/// One card as NVML sees it.
pub struct NvmlDevice {
    nvml: Nvml,
    index: u32,
}

impl NvmlDevice {
    /// The card that CUDA calls `cuda_index`, which `CUDA_VISIBLE_DEVICES` may have renumbered.
    ///
    /// # Errors
    /// If there is no NVML or no such card.
    pub fn new(cuda_index: usize) -> Result<Self, Error> {
        let nvml = Nvml::builder().lib_path(OsStr::new(LIBRARY)).init()?;
        let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
        let index = match card_named(visible.as_deref(), cuda_index) {
            Some(uuid) if uuid.starts_with("GPU-") => nvml.device_by_uuid(uuid)?.index()?,
            Some(number) => number.parse().unwrap_or(u32::MAX),
            None => u32::try_from(cuda_index).unwrap_or(u32::MAX),
        };
        nvml.device_by_index(index)?;
        Ok(Self { nvml, index })
    }

    /// The card's marketing name.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub fn name(&self) -> Result<String, Error> {
        Ok(self.device()?.name()?)
    }

    /// The driver's version.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub fn driver_version(&self) -> Result<String, Error> {
        Ok(self.nvml.sys_driver_version()?)
    }

    /// The card's memory now.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub fn memory(&self) -> Result<NvmlMemory, Error> {
        let device = self.device()?;
        let memory = device.memory_info()?;
        let process = std::process::id();
        // Many containers hide the list of processes; that is no error.
        let process_bytes = device.running_compute_processes().ok().and_then(|processes| {
            processes.iter().find(|entry| entry.pid == process).and_then(|entry| match entry.used_gpu_memory {
                UsedGpuMemory::Used(bytes) => Some(bytes),
                UsedGpuMemory::Unavailable => None,
            })
        });
        Ok(NvmlMemory { used_bytes: memory.used, total_bytes: memory.total, process_bytes })
    }

    /// The share of the last moments in which a kernel ran, in percent.
    ///
    /// # Errors
    /// If the driver does not answer.
    pub fn utilisation_percent(&self) -> Result<u32, Error> {
        Ok(self.device()?.utilization_rates()?.gpu)
    }

    fn device(&self) -> Result<Device<'_>, Error> {
        Ok(self.nvml.device_by_index(self.index)?)
    }
}

/// The entry of `CUDA_VISIBLE_DEVICES` for a card, if it names any: a number or a UUID.
fn card_named(visible: Option<&str>, cuda_index: usize) -> Option<&str> {
    visible?.split(',').map(str::trim).nth(cuda_index).filter(|name| !name.is_empty())
}

impl fmt::Debug for NvmlDevice {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("NvmlDevice").field("index", &self.index).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_renumbered_only_by_a_variable_that_names_some() {
        assert_eq!(card_named(None, 0), None);
        assert_eq!(card_named(Some(""), 0), None);
        assert_eq!(card_named(Some("3, GPU-12ab"), 0), Some("3"));
        assert_eq!(card_named(Some("3, GPU-12ab"), 1), Some("GPU-12ab"));
    }

    #[test]
    fn a_missing_library_or_card_is_an_error() {
        assert!(NvmlDevice::new(4096).is_err());
    }
}
