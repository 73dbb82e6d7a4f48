//! Adds CUDA to a program that was linked for the CPU.
#![expect(unsafe_code, reason = "loading a library runs its initialisers")]

use std::{
    path::{Path, PathBuf},
    sync::Mutex,
};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use crate::Error;

/// The driver's own library: present exactly where a driver is installed.
const DRIVER: &str = "libcuda.so.1";
const TORCH_CPU: &str = "libtorch_cpu.so";
const TORCH_CUDA: &str = "libtorch_cuda.so";

/// What [`load_cuda`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CudaStatus {
    /// No NVIDIA driver on this machine: the CPU is what there is.
    NoDriver {
        /// The dynamic linker's words.
        message: String,
    },
    /// CUDA is loaded.
    Ready {
        /// How many devices can be used; at least one.
        devices: usize,
        /// The library that was loaded.
        library: PathBuf,
    },
}

/// Loads libtorch's CUDA library from beside the CPU library, if the machine has an NVIDIA driver.
///
/// Call it before the first tensor: libtorch looks for CUDA once. A second call gives the first one's answer.
///
/// # Errors
/// If there is a driver and CUDA still cannot be used; the error says what is missing.
pub fn load_cuda() -> Result<CudaStatus, Error> {
    static READY: Mutex<Option<CudaStatus>> = Mutex::new(None);
    let mut ready = READY.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(status) = &*ready {
        return Ok(status.clone());
    }
    let status = load()?;
    *ready = Some(status.clone());
    Ok(status)
}

fn load() -> Result<CudaStatus, Error> {
    if let Err(error) = open(Path::new(DRIVER)) {
        return Ok(CudaStatus::NoDriver { message: error.to_string() });
    }
    let maps = std::fs::read_to_string("/proc/self/maps").map_err(|_| Error::NoLibtorch)?;
    let library = loaded_library(&maps, TORCH_CPU).ok_or(Error::NoLibtorch)?.with_file_name(TORCH_CUDA);
    if !library.exists() {
        return Err(Error::NoCudaLibrary { path: library });
    }
    open(&library).map_err(|error| Error::CudaLibrary { path: library.clone(), message: error.to_string() })?;
    match usize::try_from(tch::Cuda::device_count()) {
        Ok(devices) if devices > 0 => Ok(CudaStatus::Ready { devices, library }),
        _ => Err(Error::NoDevice),
    }
}

/// The path that a library of CUDA's wheels has beside the libtorch that is loaded, if it is there.
pub(crate) fn library_beside_libtorch(name: &str) -> Option<PathBuf> {
    let maps = std::fs::read_to_string("/proc/self/maps").ok()?;
    let torch = loaded_library(&maps, TORCH_CPU)?;
    let site = torch.ancestors().nth(3)?;
    let path = site.join("nvidia/cu13/lib").join(name);
    path.exists().then_some(path)
}

/// Loads a library for the rest of the process.
pub(crate) fn open(path: &Path) -> Result<(), libloading::Error> {
    // SAFETY: the initialisers of NVIDIA's driver and of libtorch's CUDA library only register themselves, as they
    // do in every program that links them.
    let library = unsafe { Library::open(Some(path), RTLD_NOW | RTLD_GLOBAL) }?;
    // Never unloaded: libtorch keeps pointers into it.
    std::mem::forget(library);
    Ok(())
}

/// The path of the mapped file called `name` in the text of `/proc/self/maps`.
fn loaded_library(maps: &str, name: &str) -> Option<PathBuf> {
    maps.lines()
        .filter_map(|line| line.find('/').map(|start| Path::new(&line[start..])))
        .find(|path| path.file_name().is_some_and(|file| file == name))
        .map(Path::to_owned)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    #[test]
    fn finds_a_library_in_the_maps() {
        let maps = "7f0-7f1 r--p 00000000 08:01 12 /usr/lib/libc.so.6\n\
                    7f2-7f3 r-xp 00001000 08:01 13                    /opt/with space/torch/lib/libtorch_cpu.so\n\
                    7f4-7f5 rw-p 00000000 00:00 0 [heap]\n";
        assert_eq!(loaded_library(maps, TORCH_CPU).unwrap(), Path::new("/opt/with space/torch/lib/libtorch_cpu.so"));
        assert_eq!(loaded_library(maps, TORCH_CUDA), None);
    }

    #[test]
    fn the_test_itself_has_libtorch_loaded() {
        tch::get_num_threads();
        let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
        assert!(loaded_library(&maps, TORCH_CPU).unwrap().exists());
    }

    #[test]
    fn a_second_call_answers_as_the_first() {
        match (load_cuda(), load_cuda()) {
            (Ok(first), Ok(second)) => assert_eq!(first, second),
            (Err(first), Err(second)) => assert_eq!(first.to_string(), second.to_string()),
            (first, second) => panic!("{first:?}, then {second:?}"),
        }
    }
}
