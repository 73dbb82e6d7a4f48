//! Launches kernels on libtorch's stream.
//!
//! libtorch's current stream is CUDA's legacy default stream, and its context the device's primary one: a kernel that
//! is launched here is in order with libtorch's own, with no synchronisation.
#![expect(unsafe_code, reason = "foreign functions")]

use std::{
    collections::HashMap,
    ffi::{CString, c_void},
    sync::Mutex,
};

use cudarc::driver::{result, sys};
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    element::Element,
    nvrtc::{Architecture, Source},
    prepare::code,
};

/// More than any kernel has.
const MOST_PARAMETERS: usize = 32;

/// Parameters of a kernel, collected and then launched. The order and the types of the pushes are those of the CUDA
/// function; a tensor is passed as its address.
#[derive(Debug)]
pub(crate) struct Launch {
    function: Function,
    /// Parameters one behind the other, each from a word's start.
    words: Vec<u64>,
    /// Where each begins.
    starts: Vec<usize>,
    /// The first number that does not fit its parameter.
    too_large: Option<i64>,
}

/// A loaded function. Never unloaded.
#[derive(Debug, Clone, Copy)]
struct Function(sys::CUfunction);

// SAFETY: a handle that the driver hands out and takes from any thread.
unsafe impl Send for Function {}

/// Blocks of a grid, in x, y and z.
pub(crate) type Grid = [u32; 3];

impl Launch {
    /// Of `function` in `source`, for operands like `like`.
    pub(crate) fn new(source: &Source, function: &'static str, kind: Kind, device: Device) -> Result<Self, Error> {
        let element = Element::of(function, kind)?;
        let function = find(source, function, element, device)?;
        let (words, starts) = (Vec::with_capacity(64), Vec::with_capacity(MOST_PARAMETERS));
        Ok(Self { function, words, starts, too_large: None })
    }

    /// A tensor's address. The caller has checked type, shape and device.
    pub(crate) fn tensor(self, tensor: &Tensor) -> Self {
        self.word(tensor.data_ptr() as u64)
    }

    /// A tensor's address, or null.
    pub(crate) fn optional(self, tensor: Option<&Tensor>) -> Self {
        self.word(tensor.map_or(0, |tensor| tensor.data_ptr() as u64))
    }

    /// `int`; a value that is none fails the launch.
    pub(crate) fn int(mut self, value: i64) -> Self {
        self.too_large = self.too_large.or(i32::try_from(value).is_err().then_some(value));
        self.word(u64::from(value as i32 as u32))
    }

    /// `i64` or `u64`
    pub(crate) fn long(self, value: i64) -> Self {
        self.word(value as u64)
    }

    /// `float`
    pub(crate) fn float(self, value: f32) -> Self {
        self.word(u64::from(value.to_bits()))
    }

    /// A struct by value, given as its words.
    pub(crate) fn structure(mut self, words: &[u64]) -> Self {
        self.starts.push(self.words.len());
        self.words.extend_from_slice(words);
        self
    }

    fn word(self, word: u64) -> Self {
        self.structure(&[word])
    }

    /// Launches. A grid without blocks does nothing.
    pub(crate) fn run(mut self, grid: Grid, threads: u32, shared_bytes: u32) -> Result<(), Error> {
        if grid.contains(&0) {
            return Ok(());
        }
        if let Some(value) = self.too_large {
            return Err(Error::Driver { call: "launch", message: format!("{value} does not fit into 32 bits") });
        }
        let words = self.words.as_mut_ptr();
        let mut parameters = [std::ptr::null_mut(); MOST_PARAMETERS];
        let count = self.starts.len();
        if count > MOST_PARAMETERS {
            return Err(Error::Driver { call: "launch", message: format!("{count} parameters are too many") });
        }
        for (parameter, start) in parameters.iter_mut().zip(&self.starts) {
            // SAFETY: every start lies within `words`, which is not changed before the launch has copied it.
            *parameter = unsafe { words.add(*start) }.cast::<c_void>();
        }
        let parameters = &mut parameters[..count];
        let (grid, block) = ((grid[0], grid[1], grid[2]), (threads, 1, 1));
        // SAFETY: the callers of this module push what the function declares, and have checked that its tensors are on
        // this device and as large as it reads and writes. libtorch's allocator reuses their memory in stream order.
        unsafe { result::launch_kernel(self.function.0, grid, block, shared_bytes, std::ptr::null_mut(), parameters) }
            .map_err(|error| driver("cuLaunchKernel", &error))
    }
}

/// What was loaded so far. Never unloaded.
#[derive(Default)]
struct Loaded {
    /// By where the names of source and function stand, which says enough and is quickly hashed, and the number of the
    /// device. The same name at another place is found by its module.
    functions: HashMap<([usize; 4], Element, usize), Function>,
    /// By the name of the source.
    modules: HashMap<(&'static str, Element, usize), Module>,
}

#[derive(Clone, Copy)]
struct Module(sys::CUmodule);

// SAFETY: a handle that the driver hands out and takes from any thread.
unsafe impl Send for Module {}

fn find(source: &Source, function: &'static str, element: Element, device: Device) -> Result<Function, Error> {
    static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);
    let ordinal = enter_device(device)?;
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let loaded = loaded.get_or_insert_default();
    let place = |name: &str| (name.as_ptr() as usize, name.len());
    let ((source_at, source_length), (function_at, function_length)) = (place(source.name), place(function));
    let key = ([source_at, source_length, function_at, function_length], element, ordinal);
    if let Some(function) = loaded.functions.get(&key) {
        return Ok(*function);
    }
    let module = match loaded.modules.get(&(source.name, element, ordinal)) {
        Some(module) => *module,
        None => {
            let code = code(source, element, architecture(device)?)?;
            // SAFETY: `code` is a whole machine code file, which the driver copies.
            let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
            let module = Module(module.map_err(|error| driver("cuModuleLoadData", &error))?);
            loaded.modules.insert((source.name, element, ordinal), module);
            module
        }
    };
    let name =
        CString::new(function).map_err(|_| Error::Driver { call: "cuModuleGetFunction", message: String::new() })?;
    // SAFETY: the module is loaded and never unloaded.
    let handle = unsafe { result::module::get_function(module.0, name) };
    let handle = Function(handle.map_err(|error| driver("cuModuleGetFunction", &error))?);
    allow_shared_memory(handle, device)?;
    loaded.functions.insert(key, handle);
    Ok(handle)
}

/// Lets a function have all the shared memory that the device gives one block; without this it is 48 KB.
fn allow_shared_memory(function: Function, device: Device) -> Result<(), Error> {
    use sys::CUfunction_attribute_enum as Attribute;
    let most = attribute(device, sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?;
    // SAFETY: the function is loaded and never unloaded.
    let own =
        unsafe { result::function::get_function_attribute(function.0, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) }
            .map_err(|error| driver("cuFuncGetAttribute", &error))?;
    let dynamic = Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    // SAFETY: the same.
    unsafe { result::function::set_function_attribute(function.0, dynamic, most - own) }
        .map_err(|error| driver("cuFuncSetAttribute", &error))
}

/// Makes a device the thread's current one if it has none, and gives its number.
pub(crate) fn enter_device(device: Device) -> Result<usize, Error> {
    let ordinal = ordinal(device)?;
    enter(ordinal)?;
    Ok(ordinal)
}

/// Makes the device's primary context, which libtorch uses, the thread's current one if it has none.
fn enter(ordinal: usize) -> Result<(), Error> {
    static CONTEXTS: Mutex<Option<HashMap<usize, usize>>> = Mutex::new(None);
    if let Ok(Some(_)) = result::ctx::get_current() {
        return Ok(());
    }
    let mut contexts = CONTEXTS.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let contexts = contexts.get_or_insert_default();
    let context = match contexts.get(&ordinal) {
        Some(context) => *context,
        None => {
            result::init().map_err(|error| driver("cuInit", &error))?;
            let device = result::device::get(ordinal as i32).map_err(|error| driver("cuDeviceGet", &error))?;
            // SAFETY: the device exists; the context is never released.
            let context = unsafe { result::primary_ctx::retain(device) };
            let context = context.map_err(|error| driver("cuDevicePrimaryCtxRetain", &error))? as usize;
            contexts.insert(ordinal, context);
            context
        }
    };
    // SAFETY: the context is retained.
    unsafe { result::ctx::set_current(context as sys::CUcontext) }.map_err(|error| driver("cuCtxSetCurrent", &error))
}

/// What a card can run.
pub(crate) fn architecture(device: Device) -> Result<Architecture, Error> {
    use sys::CUdevice_attribute_enum as Attribute;
    ordinal(device)?;
    result::init().map_err(|error| driver("cuInit", &error))?;
    let major = attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?;
    Architecture(major, attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?).check()
}

/// What is free of a card's memory, and what it has, in bytes.
pub(crate) fn device_memory(card: usize) -> Option<(u64, u64)> {
    // SAFETY: only asks the dynamic linker for names.
    if !unsafe { sys::is_culib_present() } {
        return None;
    }
    enter(card).ok()?;
    let (free, total) = result::mem_get_info().ok()?;
    Some((free as u64, total as u64))
}

fn attribute(device: Device, attribute: sys::CUdevice_attribute) -> Result<i32, Error> {
    let device = result::device::get(ordinal(device)? as i32).map_err(|error| driver("cuDeviceGet", &error))?;
    // SAFETY: the device exists.
    unsafe { result::device::get_attribute(device, attribute) }.map_err(|error| driver("cuDeviceGetAttribute", &error))
}

fn ordinal(device: Device) -> Result<usize, Error> {
    match device {
        Device::Cuda(ordinal) => Ok(ordinal),
        other => Err(Error::Driver { call: "launch", message: format!("{other:?} is no CUDA device") }),
    }
}

/// An error of the driver.
pub(crate) fn driver(call: &'static str, error: &result::DriverError) -> Error {
    let words = error.error_string().map(|text| text.to_string_lossy().into_owned());
    Error::Driver { call, message: words.unwrap_or_else(|_| format!("{error:?}")) }
}
