//! Brings libtorch into the state that a stage asks for: device, threads, determinism; and watches its memory.

use pipe_kernels::{CudaStatus, NvmlDevice};
use tch::Device;

/// The one CUDA device that is used.
const CUDA_DEVICE: usize = 0;

/// What a stage asks of libtorch.
#[derive(Debug, Clone, Copy)]
pub struct RuntimeOptions {
    /// CUDA devices; 0 runs on the CPU.
    pub gpus: usize,
    /// Threads of one operation on the CPU.
    pub threads: usize,
    /// Whether CUDA may multiply float32 matrices in TF32.
    pub tf32: bool,
    /// Whether cuDNN may time its algorithms.
    pub cudnn_benchmark: bool,
}

/// The memory of a card.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Card {
    /// All of it.
    pub total_bytes: u64,
    /// What others than this process use of it.
    pub others_bytes: u64,
}

/// libtorch, ready to compute the same bytes every time.
#[derive(Debug)]
pub struct Runtime {
    device: Device,
    /// Where the driver has a management library.
    nvml: Option<NvmlDevice>,
}

/// Why libtorch cannot be used as asked.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The machine has no NVIDIA driver.
    #[error("a GPU is asked for, and this machine has no NVIDIA driver ({message})")]
    NoDriver {
        /// The dynamic linker's words.
        message: String,
    },
    /// More than one device is asked for.
    #[error("the stage asks for {gpus} GPUs; one process trains on one")]
    ManyDevices {
        /// How many.
        gpus: usize,
    },
    /// libtorch or CUDA refused.
    #[error(transparent)]
    Kernels(#[from] pipe_kernels::Error),
}

impl RuntimeError {
    /// What the user can do.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::NoDriver { .. } => "leave `resources.gpus` out to run on the CPU",
            Self::ManyDevices { .. } => "write `resources: { gpus: 1 }`",
            Self::Kernels(_) => {
                "run `make gpu`, which fetches libtorch's CUDA libraries, and see what `pipe doctor` says"
            }
        }
    }
}

impl Runtime {
    /// Sets libtorch up. Call it before the first tensor.
    ///
    /// # Errors
    /// If a GPU is asked for and cannot be used.
    pub fn start(options: RuntimeOptions) -> Result<Self, RuntimeError> {
        let device = match options.gpus {
            0 => Device::Cpu,
            1 => match pipe_kernels::load_cuda()? {
                CudaStatus::Ready { .. } => Device::Cuda(CUDA_DEVICE),
                CudaStatus::NoDriver { message } => return Err(RuntimeError::NoDriver { message }),
            },
            gpus => return Err(RuntimeError::ManyDevices { gpus }),
        };
        pipe_kernels::set_deterministic(true)?;
        pipe_kernels::set_tf32(options.tf32)?;
        pipe_kernels::set_cudnn_benchmark(options.cudnn_benchmark)?;
        pipe_kernels::set_threads(options.threads);
        let nvml = device.is_cuda().then(|| NvmlDevice::new(CUDA_DEVICE).ok()).flatten();
        Ok(Self { device, nvml })
    }

    /// Where tensors live.
    pub fn device(&self) -> Device {
        self.device
    }

    /// The kind of device: results are the same on all of a kind.
    pub fn device_kind(&self) -> &'static str {
        if self.device.is_cuda() { "cuda" } else { "cpu" }
    }

    /// The memory of the card in bytes, and what others use of it, by the driver; `None` on the CPU, or where the driver has
    /// no management library.
    pub fn card(&self) -> Option<Card> {
        let memory = self.nvml.as_ref()?.memory().ok()?;
        let others_bytes = memory.used_bytes.saturating_sub(memory.process_bytes.unwrap_or(0));
        Some(Card { total_bytes: memory.total_bytes, others_bytes })
    }

    /// Keeps the allocator to `bytes` of `card`. Call it before the first tensor.
    ///
    /// # Errors
    /// If libtorch refuses.
    pub fn limit_memory(&self, card: Card, bytes: u64) -> Result<(), RuntimeError> {
        Ok(pipe_kernels::limit_cuda_memory((bytes as f64 / card.total_bytes.max(1) as f64).min(1.0))?)
    }

    /// What memory is in use, by name: of the card by libtorch's allocator and by the driver, with how busy that says it
    /// is, and of the machine by the process. What cannot be read is left out.
    pub fn memory(&self) -> Vec<(&'static str, f64)> {
        let mut figures = Vec::new();
        if let Some(memory) = self.device.is_cuda().then(|| pipe_kernels::cuda_memory(CUDA_DEVICE).ok()).flatten() {
            figures.push(("cuda_allocated_bytes", memory.allocated_bytes as f64));
            figures.push(("cuda_allocated_peak_bytes", memory.allocated_peak_bytes as f64));
            figures.push(("cuda_reserved_bytes", memory.reserved_bytes as f64));
            figures.push(("cuda_reserved_peak_bytes", memory.reserved_peak_bytes as f64));
        }
        if let Some((device, memory)) = self.nvml.as_ref().and_then(|device| Some((device, device.memory().ok()?))) {
            figures.push(("nvml_used_bytes", memory.used_bytes as f64));
            figures.push(("nvml_total_bytes", memory.total_bytes as f64));
            figures.extend(memory.process_bytes.map(|bytes| ("nvml_process_bytes", bytes as f64)));
            figures.extend(device.utilisation_percent().ok().map(|busy| ("nvml_utilisation_percent", f64::from(busy))));
        }
        let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
        for (name, field) in [("resident_bytes", "VmRSS:"), ("resident_peak_bytes", "VmHWM:")] {
            figures.extend(status_bytes(&status, field).map(|bytes| (name, bytes)));
        }
        figures
    }
}

/// A size in the text of `/proc/self/status`.
fn status_bytes(status: &str, field: &str) -> Option<f64> {
    let line = status.lines().find_map(|line| line.strip_prefix(field))?;
    let kibibytes: f64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes * 1024.0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn sizes_of_the_process_are_read() {
        assert_eq!(status_bytes("Name:\tpipe\nVmHWM:\t    2048 kB\nVmRSS:\t1 kB\n", "VmHWM:"), Some(2_097_152.0));
        assert_eq!(status_bytes("Name:\tpipe\n", "VmHWM:"), None);
        let runtime = Runtime { device: Device::Cpu, nvml: None };
        let figures = runtime.memory();
        assert_eq!(
            figures.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
            ["resident_bytes", "resident_peak_bytes"]
        );
        assert!(figures[0].1 > 1e6 && figures[0].1 <= figures[1].1, "{figures:?}");
    }
}
