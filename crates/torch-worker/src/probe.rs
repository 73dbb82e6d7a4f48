//! What libtorch and the GPU offer here, as one JSON object for `pipe doctor`.

use pipe_kernels::{CudaStatus, NvmlDevice, load_cuda};
use serde_json::{Value, json};

/// Loads CUDA as a training stage would, and says what came of it.
pub(crate) fn report() -> Value {
    let cuda = match load_cuda() {
        Ok(CudaStatus::Ready { devices, library }) => json!({
            "status": "ready",
            "library": library,
            "devices": (0..devices).map(device).collect::<Vec<_>>(),
        }),
        Ok(CudaStatus::NoDriver { message }) => json!({ "status": "no_driver", "message": message }),
        Err(error) => json!({ "status": "unusable", "message": error.to_string() }),
    };
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "libtorch": libtorch(),
        "threads": pipe_kernels::threads(),
        "cuda": cuda,
    })
}

/// The libtorch that this process has loaded.
fn libtorch() -> Value {
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let path = maps
        .lines()
        .find_map(|line| line.find('/').map(|start| &line[start..]).filter(|path| path.ends_with("/libtorch_cpu.so")));
    json!(path)
}

fn device(index: usize) -> Value {
    match NvmlDevice::new(index).and_then(|device| Ok((device.name()?, device.driver_version()?, device.memory()?))) {
        Ok((name, driver, memory)) => json!({
            "name": name, "driver": driver, "total_bytes": memory.total_bytes, "used_bytes": memory.used_bytes,
        }),
        Err(error) => json!({ "name": null, "message": error.to_string() }),
    }
}
