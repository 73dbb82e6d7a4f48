//! Places in streams of the device, and a stream beside libtorch's for copies.
#![expect(unsafe_code, reason = "foreign functions")]

use std::ffi::c_void;

use cudarc::driver::{result, sys};
use tch::{Device, Tensor};

use crate::{
    Error,
    launch::{driver, enter_device},
};

/// A place in a stream.
#[derive(Debug)]
pub(crate) struct Mark(sys::CUevent);

// SAFETY: a handle that the driver takes from any thread.
unsafe impl Send for Mark {}

/// A stream for copies that run beside libtorch's kernels. What it begins to copy must stay in place until a
/// [`Mark`] behind it was reached.
#[derive(Debug)]
pub(crate) struct CopyStream {
    stream: sys::CUstream,
    device: Device,
}

// SAFETY: the same.
unsafe impl Send for CopyStream {}

impl Mark {
    /// Behind all that was launched so far in libtorch's stream.
    pub(crate) fn new(device: Device) -> Result<Self, Error> {
        Self::behind(std::ptr::null_mut(), device)
    }

    fn behind(stream: sys::CUstream, device: Device) -> Result<Self, Error> {
        enter_device(device)?;
        let event = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING);
        let mark = Self(event.map_err(|error| driver("cuEventCreate", &error))?);
        // SAFETY: the event was just made, and the stream lives.
        unsafe { result::event::record(mark.0, stream) }.map_err(|error| driver("cuEventRecord", &error))?;
        Ok(mark)
    }

    /// Waits until the device has come so far.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        // SAFETY: the event lives as long as `self`.
        unsafe { result::event::synchronize(self.0) }.map_err(|error| driver("cuEventSynchronize", &error))
    }

    /// Lets what is launched from now on in libtorch's stream wait until the device has come so far.
    pub(crate) fn hold_libtorch(&self) -> Result<(), Error> {
        self.hold(std::ptr::null_mut())
    }

    fn hold(&self, stream: sys::CUstream) -> Result<(), Error> {
        let flags = sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: the event lives as long as `self`, the stream as long as its owner, who calls.
        unsafe { result::stream::wait_event(stream, self.0, flags) }
            .map_err(|error| driver("cuStreamWaitEvent", &error))
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // SAFETY: nobody uses the event after this; the driver frees it once it was reached.
        let _ = unsafe { result::event::destroy(self.0) };
    }
}

impl CopyStream {
    /// A new stream, which waits for no other.
    pub(crate) fn new(device: Device) -> Result<Self, Error> {
        enter_device(device)?;
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking);
        Ok(Self { stream: stream.map_err(|error| driver("cuStreamCreate", &error))?, device })
    }

    /// Begins to copy `tensor`, behind all that was launched so far in libtorch's stream, to the page-locked `host`.
    pub(crate) fn to_host(&self, tensor: &Tensor, host: &Tensor) -> Result<Mark, Error> {
        let bytes = self.check(tensor, host)?;
        Mark::new(self.device)?.hold(self.stream)?;
        let (from, to) = (tensor.data_ptr() as sys::CUdeviceptr, host.data_ptr());
        // SAFETY: both are as large as checked, the one on the device, the other page-locked.
        unsafe { sys::cuMemcpyDtoHAsync_v2(to, from, bytes, self.stream).result() }
            .map_err(|error| driver("cuMemcpyDtoHAsync", &error))?;
        Mark::behind(self.stream, self.device)
    }

    /// Begins to copy from the page-locked `host` to `tensor`, behind all that was launched so far in libtorch's stream.
    pub(crate) fn to_device(&self, host: &Tensor, tensor: &Tensor) -> Result<Mark, Error> {
        let bytes = self.check(tensor, host)?;
        Mark::new(self.device)?.hold(self.stream)?;
        let (from, to) = (host.data_ptr().cast::<c_void>().cast_const(), tensor.data_ptr() as sys::CUdeviceptr);
        // SAFETY: the same.
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, from, bytes, self.stream).result() }
            .map_err(|error| driver("cuMemcpyHtoDAsync", &error))?;
        Mark::behind(self.stream, self.device)
    }

    /// The device that it belongs to.
    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Waits until everything is copied.
    pub(crate) fn wait(&self) -> Result<(), Error> {
        // SAFETY: the stream lives as long as `self`.
        unsafe { result::stream::synchronize(self.stream) }.map_err(|error| driver("cuStreamSynchronize", &error))
    }

    /// The bytes of `tensor`, for which `host` has room.
    fn check(&self, tensor: &Tensor, host: &Tensor) -> Result<usize, Error> {
        let bytes = |tensor: &Tensor| tensor.numel() * tensor.kind().elt_size_in_bytes();
        let fits = tensor.device() == self.device && tensor.is_contiguous() && bytes(host) >= bytes(tensor);
        match fits && !host.device().is_cuda() {
            true => Ok(bytes(tensor)),
            false => Err(Error::Driver { call: "copy", message: "the operands do not fit".to_owned() }),
        }
    }
}

impl Drop for CopyStream {
    fn drop(&mut self) {
        let _ = self.wait();
        // SAFETY: nobody uses the stream after this.
        let _ = unsafe { result::stream::destroy(self.stream) };
    }
}
