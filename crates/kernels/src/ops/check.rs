//! Checks of operands in front of a launch: a kernel trusts what it is given.

use tch::{Device, Kind, Tensor};

use crate::Error;

/// Checks the operands of one operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) kernel: &'static str,
    pub(crate) device: Device,
}

impl Check {
    /// A tensor of this type and shape, contiguous, on the device.
    pub(crate) fn tensor(&self, name: &str, tensor: &Tensor, kind: Kind, shape: &[i64]) -> Result<(), Error> {
        self.kind_and_device(name, tensor, kind)?;
        if tensor.size() != shape || !tensor.is_contiguous() {
            let (size, stride) = (tensor.size(), tensor.stride());
            return Err(
                self.wrong(format!("{name} must be contiguous {shape:?}, it is {size:?} with strides {stride:?}"))
            );
        }
        Ok(())
    }

    /// A matrix of this type and shape whose rows may be parts of longer ones; gives the distance between rows.
    pub(crate) fn rows(&self, name: &str, tensor: &Tensor, kind: Kind, shape: [i64; 2]) -> Result<i64, Error> {
        self.kind_and_device(name, tensor, kind)?;
        let stride = tensor.stride();
        if tensor.size() != shape || stride.len() != 2 || stride[1] != 1 || stride[0] < shape[1] {
            let size = tensor.size();
            return Err(
                self.wrong(format!("{name} must have rows of {shape:?}, it is {size:?} with strides {stride:?}"))
            );
        }
        Ok(stride[0])
    }

    pub(crate) fn require(&self, holds: bool, problem: impl FnOnce() -> String) -> Result<(), Error> {
        if holds { Ok(()) } else { Err(self.wrong(problem())) }
    }

    pub(crate) fn wrong(&self, problem: String) -> Error {
        Error::Operands { kernel: self.kernel, problem }
    }

    fn kind_and_device(&self, name: &str, tensor: &Tensor, kind: Kind) -> Result<(), Error> {
        if tensor.kind() != kind || tensor.device() != self.device {
            let (found, place) = (tensor.kind(), tensor.device());
            return Err(
                self.wrong(format!("{name} must be {kind:?} on {:?}, it is {found:?} on {place:?}", self.device))
            );
        }
        Ok(())
    }
}
