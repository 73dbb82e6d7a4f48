//! CUDA C to machine code at run time, kept on disk by what went in.
//!
//! NVRTC needs neither a GPU nor a driver: a test compiles everything for every architecture on any machine.
#![expect(unsafe_code, reason = "foreign functions")]

use std::{
    ffi::{CStr, CString},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use cudarc::nvrtc::{result, sys};

use crate::{Error, cuda, element::Element};

/// A CUDA source of this crate.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    /// Its own: that of its file without ending, and behind it what tells apart several sources of one file.
    pub(crate) name: &'static str,
    pub(crate) text: &'static str,
    /// An option of the compiler, `-DNAME=VALUE`, or nothing.
    pub(crate) define: &'static str,
}

/// A source of the folder `cuda`, by its name; or one of several of a file, for a value of a macro of it. They are
/// compiled apart, so that nobody waits for what is not used.
macro_rules! source {
    ($name:literal) => {
        $crate::nvrtc::Source {
            name: $name,
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/", $name, ".cu")),
            define: "",
        }
    };
    ($name:literal, $define:ident = $value:literal) => {
        $crate::nvrtc::Source {
            name: concat!($name, "_", $value),
            text: include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/cuda/", $name, ".cu")),
            define: concat!("-D", stringify!($define), "=", $value),
        }
    };
}
pub(crate) use source;

/// What every source starts with.
const COMMON: &str = include_str!("../cuda/common.cuh");

/// The compute capability of a card, as major and minor number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Architecture(pub(crate) i32, pub(crate) i32);

impl Architecture {
    /// The oldest that the kernels are written for: Ampere, the first with bfloat16 and asynchronous copies.
    const OLDEST: Self = Self(8, 0);

    /// Refuses older cards.
    pub(crate) fn check(self) -> Result<Self, Error> {
        if (self.0, self.1) < (Self::OLDEST.0, Self::OLDEST.1) {
            return Err(Error::OldCard { major: self.0, minor: self.1 });
        }
        Ok(self)
    }
}

/// The machine code of a source, from the disk or compiled and put there.
pub(crate) fn machine_code(source: &Source, element: Element, architecture: Architecture) -> Result<Vec<u8>, Error> {
    load_library()?;
    let program = Program { source, element, architecture };
    let Some(path) = cache_folder().and_then(|folder| Some(folder.join(program.file_name()?))) else {
        return program.compile();
    };
    if let Ok(code) = std::fs::read(&path)
        && !code.is_empty()
    {
        return Ok(code);
    }
    let code = program.compile()?;
    // Only a cache: a folder that cannot be written costs a second at the next start.
    let _ = keep(&path, &code);
    Ok(code)
}

/// The machine code of a source, compiled now.
#[cfg(test)]
pub(crate) fn compile(source: &Source, element: Element, architecture: Architecture) -> Result<Vec<u8>, Error> {
    load_library()?;
    Program { source, element, architecture }.compile()
}

struct Program<'a> {
    source: &'a Source,
    element: Element,
    architecture: Architecture,
}

impl Program<'_> {
    fn options(&self) -> Vec<String> {
        let Architecture(major, minor) = self.architecture;
        let mut options = vec![
            format!("--gpu-architecture=sm_{major}{minor}"),
            "--std=c++17".to_owned(),
            format!("-DELEMENT={}", self.element as i32),
        ];
        options.extend((!self.source.define.is_empty()).then(|| self.source.define.to_owned()));
        options
    }

    /// Names all that the code depends on.
    fn file_name(&self) -> Option<String> {
        let (mut major, mut minor) = (0, 0);
        // SAFETY: both point to integers that outlive the call.
        let status = unsafe { sys::nvrtcVersion(&raw mut major, &raw mut minor) };
        status.result().ok()?;
        let mut hasher = blake3::Hasher::new();
        for part in [COMMON, self.source.text, &format!("{major}.{minor}")].into_iter() {
            hasher.update(&(part.len() as u64).to_le_bytes()).update(part.as_bytes());
        }
        for option in self.options() {
            hasher.update(&(option.len() as u64).to_le_bytes()).update(option.as_bytes());
        }
        Some(format!("{}-{}.cubin", self.source.name, &hasher.finalize().to_hex()[..32]))
    }

    fn compile(&self) -> Result<Vec<u8>, Error> {
        let failed = |message: String| Error::Compile { source_name: self.source.name, message };
        let text = CString::new(format!("{COMMON}\n#line 1 \"{}.cu\"\n{}", self.source.name, self.source.text));
        let text = text.map_err(|error| failed(error.to_string()))?;
        let handle = Handle(result::create_program(&text, None).map_err(|error| failed(error.to_string()))?);
        // SAFETY: the handle is alive, and the options are strings without a zero byte.
        if let Err(error) = unsafe { result::compile_program(handle.0, &self.options()) } {
            return Err(failed(handle.log().unwrap_or_else(|| error.to_string())));
        }
        handle.code().map_err(|error| failed(error.to_string()))
    }
}

/// An NVRTC program, destroyed when it goes.
struct Handle(sys::nvrtcProgram);

impl Handle {
    fn log(&self) -> Option<String> {
        // SAFETY: the handle is alive.
        let log = unsafe { result::get_program_log(self.0) }.ok()?;
        // SAFETY: NVRTC ends its log with a zero byte.
        Some(unsafe { CStr::from_ptr(log.as_ptr()) }.to_string_lossy().into_owned())
    }

    fn code(&self) -> Result<Vec<u8>, result::NvrtcError> {
        let mut length = 0;
        // SAFETY: the handle is alive, `length` outlives the call.
        unsafe { sys::nvrtcGetCUBINSize(self.0, &raw mut length) }.result()?;
        let mut code = vec![0_u8; length];
        // SAFETY: the buffer has the length that NVRTC asked for.
        unsafe { sys::nvrtcGetCUBIN(self.0, code.as_mut_ptr().cast()) }.result()?;
        Ok(code)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: nobody uses the handle after this.
        let _ = unsafe { result::destroy_program(self.0) };
    }
}

/// Loads NVRTC from beside libtorch, or from where the dynamic linker looks.
fn load_library() -> Result<(), Error> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let loaded = LOADED.get_or_init(|| {
        // NVRTC looks for its second half by name alone: what is loaded already is found.
        let libraries = ["libnvrtc-builtins.so.13.0", "libnvrtc.so.13"];
        let paths = libraries.into_iter().filter_map(cuda::library_beside_libtorch);
        let message = paths.filter_map(|path| cuda::open(&path).err()).map(|error| error.to_string()).next();
        // SAFETY: only asks the dynamic linker for names.
        match unsafe { sys::is_culib_present() } {
            true => Ok(()),
            false => Err(message.unwrap_or_else(|| "libnvrtc.so.13 is not installed".to_owned())),
        }
    });
    loaded.clone().map_err(|message| Error::NoNvrtc { message })
}

/// Where machine code is kept: `$PIPE_KERNEL_CACHE`, else below the user's cache folder.
fn cache_folder() -> Option<PathBuf> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("PIPE_KERNEL_CACHE")
        .or_else(|| variable("XDG_CACHE_HOME").map(|folder| folder.join("pipe/kernels")))
        .or_else(|| variable("HOME").map(|folder| folder.join(".cache/pipe/kernels")))
}

/// Puts a file in place whole.
fn keep(path: &Path, code: &[u8]) -> std::io::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let unfinished = path.with_extension(format!("{}.tmp", std::process::id()));
    std::fs::write(&unfinished, code)?;
    std::fs::rename(&unfinished, path)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    /// Ampere to Blackwell.
    const ARCHITECTURES: [Architecture; 6] = [
        Architecture(8, 0),
        Architecture(8, 6),
        Architecture(8, 9),
        Architecture(9, 0),
        Architecture(10, 0),
        Architecture(12, 0),
    ];

    #[test]
    fn every_source_compiles_for_every_architecture() {
        load_library().unwrap();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda");
        let files = std::fs::read_dir(folder)
            .unwrap()
            .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|ending| ending == "cu"));
        let texts: std::collections::HashSet<_> =
            crate::ops::all_sources().into_iter().map(|source| source.text).collect();
        assert_eq!(files.count(), texts.len(), "a source is not in `sources_of_training`");
        std::thread::scope(|scope| {
            for part in ARCHITECTURES.chunks(3) {
                scope.spawn(move || {
                    for architecture in part {
                        let sources = crate::ops::all_sources().into_iter();
                        for (source, element) in
                            sources.flat_map(|source| Element::ALL.map(|element| (source, element)))
                        {
                            let program = Program { source, element, architecture: *architecture };
                            let code = program.compile().unwrap_or_else(|error| panic!("{architecture:?}: {error}"));
                            assert!(code.starts_with(b"\x7fELF"), "{} for {architecture:?}", source.name);
                        }
                    }
                });
            }
        });
    }

    #[test]
    fn an_error_shows_the_compilers_words() {
        load_library().unwrap();
        let text = "extern \"C\" __global__ void broken() { nonsense; }";
        let source = Source { name: "broken", text, define: "" };
        let program = Program { source: &source, element: Element::Float32, architecture: Architecture::OLDEST };
        let message = program.compile().unwrap_err().to_string();
        assert!(message.contains("broken.cu(1)") && message.contains("nonsense"), "{message}");
    }

    #[test]
    fn names_depend_on_all_that_goes_in() {
        load_library().unwrap();
        let sources = [("one", ""), ("two", ""), ("one", "-DMORE=1")];
        let sources = sources.map(|(text, define)| Source { name: "same", text, define });
        let mut names = Vec::new();
        for source in &sources {
            for element in Element::ALL {
                for architecture in ARCHITECTURES {
                    names.push(Program { source, element, architecture }.file_name().unwrap());
                }
            }
        }
        let count = names.len();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn old_cards_are_refused() {
        let message = Architecture(7, 5).check().unwrap_err().to_string();
        assert!(message.contains("7.5") && message.contains("8.0"), "{message}");
        assert!(Architecture(12, 0).check().is_ok());
    }
}
