//! What a run had under it, as far as that may matter for its figures and its bytes. Never the name of the host.

use std::fs;

use serde::{Deserialize, Serialize};

/// The machine of a run. Looking at it takes microseconds and touches no device.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Machine {
    /// The operating system: `linux`.
    pub os: String,
    /// The architecture: `x86_64`.
    pub arch: String,
    /// The model of the CPU, where it says so.
    pub cpu: Option<String>,
    /// CPUs that this process may use.
    pub cpus: usize,
    /// Main memory, in bytes.
    pub memory_bytes: u64,
    /// The models of the GPUs that the driver lists, whether a stage used them or not.
    pub gpus: Vec<String>,
}

impl Machine {
    /// The machine that this process runs on.
    pub fn here() -> Self {
        let memory = rustix::system::sysinfo();
        Self {
            os: std::env::consts::OS.to_owned(),
            arch: std::env::consts::ARCH.to_owned(),
            cpu: cpu(),
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            memory_bytes: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
            gpus: gpus(),
        }
    }
}

/// The brand that the CPU itself tells. `/proc/cpuinfo` would say the same, on some kernels after milliseconds.
#[cfg(target_arch = "x86_64")]
fn cpu() -> Option<String> {
    use std::arch::x86_64::__cpuid;
    const BRAND: std::ops::RangeInclusive<u32> = 0x8000_0002..=0x8000_0004;
    if __cpuid(0x8000_0000).eax < *BRAND.end() {
        return None;
    }
    let bytes: Vec<u8> = BRAND
        .map(__cpuid)
        .flat_map(|leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
        .flat_map(u32::to_le_bytes)
        .take_while(|byte| *byte != 0)
        .collect();
    let brand = String::from_utf8(bytes).ok()?;
    let brand = brand.split_whitespace().collect::<Vec<_>>().join(" ");
    (!brand.is_empty()).then_some(brand)
}

#[cfg(not(target_arch = "x86_64"))]
fn cpu() -> Option<String> {
    None
}

/// As NVIDIA's driver lists them, in the order of their addresses on the bus.
fn gpus() -> Vec<String> {
    let Ok(folders) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let mut folders: Vec<_> = folders.filter_map(|folder| Some(folder.ok()?.path())).collect();
    folders.sort();
    let model = |text: String| Some(text.lines().find_map(|line| line.strip_prefix("Model:"))?.trim().to_owned());
    folders.iter().filter_map(|folder| model(fs::read_to_string(folder.join("information")).ok()?)).collect()
}
