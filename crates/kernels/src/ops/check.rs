//! Checks of operands in front of a launch: a kernel trusts what it is given.

use tch::{Device, Kind, Tensor};

use crate::{Error, view::View};

/// Checks the operands of one operation.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Check {
    pub(crate) kernel: &'static str,
    pub(crate) device: Device,
}

impl Check {
    /// A tensor of this type and shape, contiguous, on the device.
    pub(crate) fn tensor(&self, name: &str, tensor: &Tensor, kind: Kind, shape: &[i64]) -> Result<(), Error> {
        let view = View::of(tensor);
        self.kind_and_device(name, &view, tensor, kind)?;
        if view.size() != shape || !view.contiguous {
            let (size, stride) = (tensor.size(), tensor.stride());
            return Err(
                self.wrong(format!("{name} must be contiguous {shape:?}, it is {size:?} with strides {stride:?}"))
            );
        }
        Ok(())
    }

    /// A matrix of this type and shape whose rows may be parts of longer ones; gives the distance between rows.
    pub(crate) fn rows(&self, name: &str, tensor: &Tensor, kind: Kind, shape: [i64; 2]) -> Result<i64, Error> {
        let view = View::of(tensor);
        self.kind_and_device(name, &view, tensor, kind)?;
        match view.stride() {
            &[stride, 1] if view.size() == shape && stride >= shape[1] => Ok(stride),
            stride => {
                let size = tensor.size();
                Err(self.wrong(format!("{name} must have rows of {shape:?}, it is {size:?} with strides {stride:?}")))
            }
        }
    }

    pub(crate) fn require(&self, holds: bool, problem: impl FnOnce() -> String) -> Result<(), Error> {
        if holds { Ok(()) } else { Err(self.wrong(problem())) }
    }

    pub(crate) fn wrong(&self, problem: String) -> Error {
        Error::Operands { kernel: self.kernel, problem }
    }

    fn kind_and_device(&self, name: &str, view: &View, tensor: &Tensor, kind: Kind) -> Result<(), Error> {
        if view.kind != Some(kind) || view.device != Some(self.device) {
            let (found, place) = (tensor.kind(), tensor.device());
            return Err(
                self.wrong(format!("{name} must be {kind:?} on {:?}, it is {found:?} on {place:?}", self.device))
            );
        }
        Ok(())
    }
}
