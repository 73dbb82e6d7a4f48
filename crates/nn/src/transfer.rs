//! Moves float32 tensors between a device and little-endian bytes, in slices, so that a large one needs little memory.

use tch::{Device, TchError, Tensor};

/// Values that are moved at once: 16 MiB.
const SLICE_VALUES: i64 = 1 << 22;

/// Gives `sink` the bytes of a float32 tensor, first to last, each time with their offset.
pub(crate) fn to_bytes<E>(
    tensor: &Tensor,
    mut sink: impl FnMut(u64, &[u8]) -> Result<(), E>,
    torch: impl Fn(TchError) -> E,
) -> Result<(), E> {
    let slices = slices(tensor).map_err(&torch)?;
    let mut offset = 0;
    for slice in slices {
        let values = slice.f_to_device(Device::Cpu).and_then(Vec::<f32>::try_from).map_err(&torch)?;
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        sink(offset, &bytes)?;
        offset += bytes.len() as u64;
    }
    Ok(())
}

/// Fills a float32 tensor with the bytes that `source` puts into its buffer, first to last, each time with their offset.
pub(crate) fn from_bytes<E>(
    tensor: &mut Tensor,
    mut source: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
    torch: impl Fn(TchError) -> E,
) -> Result<(), E> {
    let mut offset = 0;
    for mut slice in slices(tensor).map_err(&torch)? {
        let mut bytes = vec![0; slice.numel() * size_of::<f32>()];
        source(offset, &mut bytes)?;
        offset += bytes.len() as u64;
        let words = bytes.chunks_exact(size_of::<f32>());
        let values: Vec<f32> = words.map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]])).collect();
        Tensor::f_from_slice(&values).and_then(|values| slice.f_copy_(&values)).map_err(&torch)?;
    }
    Ok(())
}

/// Flat views of a contiguous tensor, first to last.
fn slices(tensor: &Tensor) -> Result<Vec<Tensor>, TchError> {
    let flat = tensor.f_view(-1_i64)?;
    let count = flat.size1()?;
    let starts = (0..count).step_by(SLICE_VALUES as usize);
    starts.map(|start| flat.f_narrow(0, start, SLICE_VALUES.min(count - start))).collect()
}
