//! The inputs of the layers that are computed again in the backward pass, the last one first.

use pipe_kernels::HostStack;
use pipe_memory::Residency;
use tch::{Device, Tensor};

use crate::{Error, error::Result};

/// Where they wait.
#[derive(Debug)]
pub(crate) enum LayerInputs {
    /// On the device.
    Device(Vec<Tensor>),
    /// In the memory of the host.
    Host(HostStack),
}

impl LayerInputs {
    pub(crate) fn new(residency: Residency, device: Device) -> Result<Self> {
        Ok(match residency.inputs_on_host {
            true => Self::Host(HostStack::new(device)?),
            false => Self::Device(Vec::new()),
        })
    }

    /// Forgets what a pass that failed has left.
    pub(crate) fn clear(&mut self) -> Result<()> {
        match self {
            Self::Device(tensors) => tensors.clear(),
            Self::Host(stack) => stack.clear()?,
        }
        Ok(())
    }

    pub(crate) fn push(&mut self, tensor: Tensor) -> Result<()> {
        match self {
            Self::Device(tensors) => tensors.push(tensor),
            Self::Host(stack) => stack.push(tensor)?,
        }
        Ok(())
    }

    /// The input of the last layer whose input is still there.
    pub(crate) fn pop(&mut self) -> Result<Tensor> {
        let last = match self {
            Self::Device(tensors) => tensors.pop(),
            Self::Host(stack) => stack.pop()?,
        };
        last.ok_or(Error::LayerInputs)
    }
}
