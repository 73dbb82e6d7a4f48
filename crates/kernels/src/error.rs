//! What can go wrong at the edge.

use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// libtorch refused.
    #[error("libtorch: {message}")]
    Torch {
        /// Its own words.
        message: String,
    },
    /// Tensors that a kernel cannot take.
    #[error("{kernel}: {problem}")]
    Operands {
        /// The kernel.
        kernel: &'static str,
        /// What is wrong with them.
        problem: String,
    },
    /// The program's own libtorch could not be located.
    #[error("cannot find the loaded libtorch_cpu.so in /proc/self/maps, and so not the CUDA library beside it")]
    NoLibtorch,
    /// A driver is present, libtorch's CUDA library is not.
    #[error("{} is missing, so this libtorch is for the CPU only", path.display())]
    NoCudaLibrary {
        /// Where it should be.
        path: PathBuf,
    },
    /// libtorch's CUDA library is present and does not load: mostly a library that it needs is missing.
    #[error("cannot load {}: {message}", path.display())]
    CudaLibrary {
        /// The library.
        path: PathBuf,
        /// The dynamic linker's words.
        message: String,
    },
    /// CUDA was loaded and finds no device.
    #[error(
        "the NVIDIA driver is installed, and no CUDA device can be used: is CUDA_VISIBLE_DEVICES empty, or the driver older than CUDA 13.0?"
    )]
    NoDevice,
    /// A card that the kernels are not written for.
    #[error(
        "the card's compute capability is {major}.{minor}, and 8.0 (Ampere: RTX 30, A100) is the oldest that training runs on; \
         leave `resources.gpus` out to run on the CPU"
    )]
    OldCard {
        /// Its major number.
        major: i32,
        /// Its minor number.
        minor: i32,
    },
    /// NVRTC, which compiles the kernels, is missing.
    #[error("cannot load NVRTC, which compiles CUDA kernels ({message}): run `make gpu`, which fetches it")]
    NoNvrtc {
        /// The dynamic linker's words.
        message: String,
    },
    /// A kernel does not compile.
    #[error("{source_name}.cu does not compile: {message}")]
    Compile {
        /// The source.
        source_name: &'static str,
        /// NVRTC's words.
        message: String,
    },
    /// The driver refused.
    #[error("{call}: {message}")]
    Driver {
        /// Its function.
        call: &'static str,
        /// Its words.
        message: String,
    },
    /// cuBLASLt refused.
    #[error("{call}: {message}")]
    Cublas {
        /// Its function.
        call: &'static str,
        /// Its words.
        message: String,
    },
    /// NVML, the driver's management library, is missing or refused.
    #[error("nvml: {source}")]
    Nvml {
        /// Its own error.
        #[from]
        source: nvml_wrapper::error::NvmlError,
    },
}

impl From<tch::TchError> for Error {
    fn from(error: tch::TchError) -> Self {
        // libtorch appends a C++ backtrace to its message.
        Self::Torch { message: error.to_string().lines().next().unwrap_or_default().to_owned() }
    }
}
