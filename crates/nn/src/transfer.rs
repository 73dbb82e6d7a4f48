//! Moves tensors of float32 or bytes between a device and little-endian bytes, in slices, so that a large one needs
//! little memory.

use tch::{Device, Kind, Tensor};

use crate::{Error, error::Result, parameter::Value};

/// Values that are moved at once: 16 MiB.
const SLICE_VALUES: i64 = 1 << 22;

/// Gives `sink` the bytes of a tensor, first to last, each time with their offset.
pub(crate) fn to_bytes<E>(
    value: &Value,
    mut sink: impl FnMut(u64, &[u8]) -> std::result::Result<(), E>,
    device: impl Fn(Error) -> E,
) -> std::result::Result<(), E> {
    let mut offset = 0;
    for (first, rows) in slices(value) {
        let bytes = value.read_rows(first, rows).map_err(&device)?;
        sink(offset, &bytes)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

/// Fills a tensor with the bytes that `source` puts into its buffer, first to last, each time with their offset.
pub(crate) fn from_bytes<E>(
    value: &mut Value,
    mut source: impl FnMut(u64, &mut [u8]) -> std::result::Result<(), E>,
    device: impl Fn(Error) -> E,
) -> std::result::Result<(), E> {
    let mut offset = 0;
    let (_, width) = value.matrix_size();
    for (first, rows) in slices(value) {
        let mut bytes = vec![0; (rows * width) as usize * value.bytes_of_a_value()];
        source(offset, &mut bytes)?;
        offset += bytes.len() as u64;
        value.write_rows(first, &bytes).map_err(&device)?;
    }
    Ok(())
}

/// Blocks of rows, as first and number.
fn slices(value: &Value) -> impl Iterator<Item = (i64, i64)> + use<> {
    let (count, width) = value.matrix_size();
    let block = (SLICE_VALUES / width.max(1)).max(1);
    (0..count).step_by(block as usize).map(move |first| (first, block.min(count - first)))
}

impl Value {
    /// As a matrix: its first dimension, and all others together.
    fn matrix_size(&self) -> (i64, i64) {
        let size = match self {
            Self::Whole(value) => value.size(),
            Self::Halves(halves) => halves.high.size(),
        };
        (size.first().copied().unwrap_or(1), size.iter().skip(1).product())
    }

    fn are_bytes(&self) -> bool {
        matches!(self, Self::Whole(value) if value.kind() == Kind::Uint8)
    }

    fn bytes_of_a_value(&self) -> usize {
        if self.are_bytes() { 1 } else { size_of::<f32>() }
    }

    fn read_rows(&self, first: i64, rows: i64) -> Result<Vec<u8>> {
        let part = match self {
            Self::Whole(value) => value.f_narrow(0, first, rows)?,
            Self::Halves(halves) => halves.join(first, rows)?,
        };
        let part = part.f_to_device(Device::Cpu)?.f_flatten(0, -1)?;
        if self.are_bytes() {
            return Ok(Vec::try_from(part)?);
        }
        Ok(Vec::<f32>::try_from(part)?.into_iter().flat_map(f32::to_le_bytes).collect())
    }

    fn write_rows(&mut self, first: i64, bytes: &[u8]) -> Result<()> {
        let (_, width) = self.matrix_size();
        let values = if self.are_bytes() {
            Tensor::f_from_slice(bytes)?
        } else {
            let words = bytes.as_chunks().0.iter().map(|word| f32::from_le_bytes(*word));
            Tensor::f_from_slice(&words.collect::<Vec<_>>())?
        };
        let values = values.f_view([-1, width])?;
        match self {
            Self::Whole(value) => {
                let mut part = value.f_narrow(0, first, values.size()[0])?;
                Ok(part.f_copy_(&values.f_view_as(&part)?)?)
            }
            Self::Halves(halves) => Ok(halves.write(first, &values.f_to_device(halves.high.device())?)?),
        }
    }
}
