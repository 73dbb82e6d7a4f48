//! Large tensors on their way to a device, through page-locked memory.
//!
//! libtorch copies from memory that is not page-locked, which the driver does a small part at a time while the host waits;
//! and every tensor of the host takes fresh pages, which the kernel clears. Here two parts of page-locked memory serve all
//! tensors: one is written while the device copies the other.
#![expect(unsafe_code, reason = "foreign functions")]

use std::sync::{Mutex, PoisonError};

use cudarc::driver::{result, sys};
use tch::{Device, Kind, Tensor};

use crate::{
    Error,
    launch::{driver, enter_device},
    shim::page_locked,
    stream::Mark,
};

/// One of two parts.
const PART_BYTES: usize = 16 << 20;

/// Page-locked memory for one device.
#[derive(Debug)]
struct Staging {
    device: Device,
    /// uint8, `[2 * PART_BYTES]`
    memory: Tensor,
    /// Behind the last copy out of each part.
    marks: [Option<Mark>; 2],
    turn: usize,
}

/// A tensor on `device` whose bytes `fill` writes. It is called for one part after the other, with the place of the first
/// byte.
///
/// # Errors
/// What `fill` returns, or if the device has no memory.
pub fn fill_tensor<E: From<Error>>(
    shape: &[i64],
    kind: Kind,
    device: Device,
    mut fill: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Tensor, E> {
    let count: i64 = shape.iter().product();
    let length = usize::try_from(count).unwrap_or(0) * kind.elt_size_in_bytes();
    if !device.is_cuda() {
        let mut bytes = vec![0; length];
        fill(0, &mut bytes)?;
        return Ok(Tensor::f_from_data_size(&bytes, shape, kind).map_err(Error::from)?);
    }
    static STAGING: Mutex<Option<Staging>> = Mutex::new(None);
    let out = Tensor::f_empty(shape, (kind, device)).map_err(Error::from)?;
    let mut staging = STAGING.lock().unwrap_or_else(PoisonError::into_inner);
    let staging = match &mut *staging {
        Some(staging) if staging.device == device => staging,
        other => other.insert(Staging::new(device)?),
    };
    for first in (0..length).step_by(PART_BYTES) {
        let part = staging.part((length - first).min(PART_BYTES))?;
        fill(first as u64, part)?;
        // The tensor is at least as long as what is copied.
        staging.send(out.data_ptr() as u64 + first as u64, (length - first).min(PART_BYTES))?;
    }
    Ok(out)
}

impl Staging {
    fn new(device: Device) -> Result<Self, Error> {
        enter_device(device)?;
        let memory = page_locked(2 * PART_BYTES as i64)?.f_zero_()?;
        Ok(Self { device, memory, marks: [None, None], turn: 0 })
    }

    /// The next part, once the device has read what stood there.
    fn part(&mut self, length: usize) -> Result<&mut [u8], Error> {
        self.turn = 1 - self.turn;
        if let Some(mark) = self.marks[self.turn].take() {
            mark.wait()?;
        }
        let start = self.memory.data_ptr().cast::<u8>();
        // SAFETY: within the tensor, which nobody else holds; it was written when it was made, and the device has read it.
        Ok(unsafe { std::slice::from_raw_parts_mut(start.add(self.turn * PART_BYTES), length.min(PART_BYTES)) })
    }

    /// Copies the part to an address of the device that has room for it.
    fn send(&mut self, to: sys::CUdeviceptr, length: usize) -> Result<(), Error> {
        enter_device(self.device)?;
        let start = self.memory.data_ptr().cast::<u8>();
        // SAFETY: as above.
        let part = unsafe { std::slice::from_raw_parts(start.add(self.turn * PART_BYTES), length.min(PART_BYTES)) };
        // SAFETY: the caller's tensor is as long, and freed in the order of the stream; the part is not written before the
        // mark behind the copy is reached.
        unsafe { result::memcpy_htod_async(to, part, std::ptr::null_mut()) }
            .map_err(|error| driver("cuMemcpyHtoDAsync", &error))?;
        self.marks[self.turn] = Some(Mark::new(self.device)?);
        Ok(())
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The device may still read.
        for mark in self.marks.iter_mut().filter_map(Option::take) {
            let _ = mark.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::cuda;

    #[test]
    fn every_byte_comes_to_its_place() {
        let byte = |place: u64| (place % 251) as u8 ^ (place >> 20) as u8;
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            let lengths = [0, 1, 1000, PART_BYTES, PART_BYTES + 1, 3 * PART_BYTES + 5];
            let tensors = lengths.map(|length| {
                fill_tensor::<Error>(&[length as i64], Kind::Uint8, device, |first, part| {
                    part.iter_mut().zip(first..).for_each(|(value, place)| *value = byte(place));
                    Ok(())
                })
            });
            // Looked at when all are on their way.
            for (tensor, length) in tensors.into_iter().zip(lengths) {
                let found = Vec::<u8>::try_from(tensor.unwrap().to_device(Device::Cpu)).unwrap();
                assert!(found.len() == length && found.iter().zip(0..).all(|(value, place)| *value == byte(place)));
            }
        }
    }

    #[test]
    fn shapes_types_and_failures() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            let values = [1.5_f32, -2.0, 3.0, 4.0, 5.0, 6.0];
            let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let tensor = fill_tensor::<Error>(&[2, 3], Kind::Float, device, |_, part| {
                part.copy_from_slice(&bytes);
                Ok(())
            });
            assert_eq!(tensor.unwrap().to_device(Device::Cpu), Tensor::from_slice(&values).view([2, 3]));
            let failed = fill_tensor(&[8], Kind::Uint8, device, |_, _| Err(Error::NoDevice));
            assert!(matches!(failed, Err(Error::NoDevice)));
        }
    }
}
