//! Values on their way between host and device, for which neither waits.

use tch::{Device, Kind, Tensor};

use crate::{Error, shim::page_locked, stream::Mark};

/// A tensor that is being copied to the host.
#[derive(Debug)]
pub struct Readback {
    /// On the host; with CUDA in memory that the device writes by itself.
    values: Tensor,
    /// Behind the copy; `None` where the values are there.
    mark: Option<Mark>,
}

impl Readback {
    /// Begins to copy a tensor of floats.
    ///
    /// # Errors
    /// If the device fails.
    pub fn new(tensor: &Tensor) -> Result<Self, Error> {
        if !tensor.device().is_cuda() {
            return Ok(Self { values: tensor.f_detach_copy()?, mark: None });
        }
        // libtorch takes page-locked memory for a copy that does not wait.
        let values = tensor.f_to_dtype_layout((tensor.f_kind()?, Device::Cpu), true, false)?;
        Ok(Self { values, mark: Some(Mark::new(tensor.device())?) })
    }

    /// The values, once the device has come so far.
    ///
    /// # Errors
    /// If the device failed.
    pub fn read(self) -> Result<Vec<f64>, Error> {
        if let Some(mark) = &self.mark {
            mark.wait()?;
        }
        Ok(Vec::try_from(self.values.f_to_kind(Kind::Double)?.f_flatten(0, -1)?)?)
    }
}

/// A tensor of these values on a device. The host does not wait for the copy.
///
/// # Errors
/// If the device fails.
pub fn upload<E: tch::kind::Element>(values: &[E], device: Device) -> Result<Tensor, Error> {
    upload_tensor(Tensor::f_from_slice(values)?, device)
}

/// A tensor of the host on a device. The host does not wait for the copy.
///
/// # Errors
/// If the device fails.
pub fn upload_tensor(tensor: Tensor, device: Device) -> Result<Tensor, Error> {
    if !device.is_cuda() {
        return Ok(tensor);
    }
    let kind = tensor.f_kind()?;
    let bytes = page_locked((tensor.numel() * kind.elt_size_in_bytes()) as i64)?;
    let mut host = bytes.f_view_dtype(kind)?.f_view(tensor.size().as_slice())?;
    host.f_copy_(&tensor)?;
    Ok(host.f_to_dtype_layout((kind, device), true, false)?)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::cuda;

    #[test]
    fn values_are_those_of_the_time_of_the_call() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            let tensor = Tensor::from_slice(&[1.5_f32, -2.0]).to_device(device);
            let readback = Readback::new(&tensor).unwrap();
            assert_eq!(upload(&[1_i32, -7], device).unwrap().to_device(Device::Cpu), Tensor::from_slice(&[1_i32, -7]));
            let _ = tensor.shallow_clone().fill_(7.0);
            assert_eq!(readback.read().unwrap(), [1.5, -2.0]);
        }
    }
}
