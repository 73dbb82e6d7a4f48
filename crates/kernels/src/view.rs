//! What a tensor is, asked for once: type, device, shape, strides and address.
//!
//! tch asks libtorch for each of these by itself, and puts a shape into a vector: with hundreds of operations an update, of
//! ten operands each, that is a good part of what the host has to do.

use tch::{Device, Kind, Tensor};

use crate::shim;

/// More dimensions than any operand has.
pub(crate) const MOST_DIMENSIONS: usize = 5;

/// A tensor from outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct View {
    /// `None` for a type that no kernel takes.
    pub(crate) kind: Option<Kind>,
    /// `None` for a device that is neither the CPU nor CUDA.
    pub(crate) device: Option<Device>,
    pub(crate) contiguous: bool,
    pub(crate) address: usize,
    dimensions: usize,
    sizes: [i64; MOST_DIMENSIONS],
    strides: [i64; MOST_DIMENSIONS],
}

impl View {
    pub(crate) fn of(tensor: &Tensor) -> Self {
        let raw = shim::describe(tensor);
        let device = match raw.device {
            -1 => Some(Device::Cpu),
            number => usize::try_from(number).ok().map(Device::Cuda),
        };
        Self {
            kind: kind_of(raw.kind),
            device,
            contiguous: raw.contiguous != 0,
            address: raw.address as usize,
            dimensions: usize::try_from(raw.dimensions).unwrap_or(usize::MAX),
            sizes: raw.sizes,
            strides: raw.strides,
        }
    }

    /// The shape; nothing if it has more dimensions than any operand.
    pub(crate) fn size(&self) -> &[i64] {
        self.sizes.get(..self.dimensions).unwrap_or(&[])
    }

    /// The distances between neighbours, as [`View::size`].
    pub(crate) fn stride(&self) -> &[i64] {
        self.strides.get(..self.dimensions).unwrap_or(&[])
    }
}

/// libtorch's `ScalarType`.
fn kind_of(code: i32) -> Option<Kind> {
    match code {
        0 => Some(Kind::Uint8),
        1 => Some(Kind::Int8),
        2 => Some(Kind::Int16),
        3 => Some(Kind::Int),
        4 => Some(Kind::Int64),
        5 => Some(Kind::Half),
        6 => Some(Kind::Float),
        7 => Some(Kind::Double),
        11 => Some(Kind::Bool),
        15 => Some(Kind::BFloat16),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [Kind; 10] = [
        Kind::Uint8,
        Kind::Int8,
        Kind::Int16,
        Kind::Int,
        Kind::Int64,
        Kind::Half,
        Kind::Float,
        Kind::Double,
        Kind::Bool,
        Kind::BFloat16,
    ];

    #[test]
    fn it_says_what_tch_says() {
        for device in [Some(Device::Cpu), crate::testing::cuda()].into_iter().flatten() {
            for kind in KINDS {
                let whole = Tensor::zeros([3, 4, 5], (kind, device));
                let scalar = Tensor::zeros([0_i64; 0], (kind, device));
                let none = Tensor::zeros([0, 7], (kind, device));
                for tensor in [whole.narrow(1, 1, 2), whole.transpose(0, 2), whole.select(0, 1), whole, scalar, none] {
                    let view = View::of(&tensor);
                    assert_eq!((view.kind, view.device), (Some(tensor.kind()), Some(tensor.device())));
                    assert_eq!((view.size(), view.stride()), (&tensor.size()[..], &tensor.stride()[..]));
                    assert_eq!(view.contiguous, tensor.is_contiguous());
                    assert_eq!(view.address, tensor.data_ptr() as usize);
                }
            }
        }
        let many = View::of(&Tensor::zeros([1, 1, 1, 1, 1, 1], (Kind::Float, Device::Cpu)));
        assert_eq!((many.size(), many.stride()), (&[][..], &[][..]));
        assert_eq!(View::of(&Tensor::zeros([2], (Kind::ComplexFloat, Device::Cpu))).kind, None);
    }
}
