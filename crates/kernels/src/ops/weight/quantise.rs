//! Quantisation to NF4 where the values are.

#[cfg(test)]
mod tests;

use std::sync::{Mutex, PoisonError};

use pipe_nf4::{Absmax, BLOCK, DYNAMIC_MAP, NESTED_BLOCK, NestedAbsmax, QuantizedTensor, SourceType};
use tch::{Device, Kind, Tensor};

use super::{SOURCE, Scales};
use crate::{Error, launch::Launch, ops::check::Check, readback::upload};

/// Threads of a block, and the values that it takes.
const THREADS: u32 = 256;
const BLOCK_VALUES: i64 = 4096;
/// Bytes of a `Partial` of the CUDA source.
const PARTIAL_BYTES: i64 = 16;

/// What [`quantise_nf4`] gives: an [`Nf4`](super::Nf4) on its way, whose `block` is 64.
#[derive(Debug)]
#[must_use = "the device may still refuse the values: ask `finish`"]
pub struct Quantised {
    check: Check,
    /// Of values.
    count: i64,
    state: State,
}

#[derive(Debug)]
enum State {
    /// Codes and scales, checked.
    Done(Tensor, Scales),
    /// Codes and scales.
    Plain(Parts<2>),
    /// In `kept` the codes, the codes of scales and their scales; in `passing` the scales, what is known of parts of them,
    /// and their mean.
    Nested { kept: Parts<3>, passing: Parts<3>, map: Tensor },
}

/// Quantises to NF4 on the device of the values: byte for byte what `pipe_nf4::QuantizedTensor::quantize` gives. On CUDA
/// it waits for nothing: [`Quantised::finish`] does, which a caller of many matrices asks when all of them are launched.
///
/// # Shapes
/// `values`: any, in row-major order, contiguous; on CUDA float32, bfloat16 or float16.
///
/// # Errors
/// If the operands do not fit, or the device refuses. On the CPU also if a value is NaN or infinite.
///
/// # Source
/// Dettmers et al., QLoRA, arXiv:2305.14314, section 3; bitsandbytes, `kQuantizeBlockwise`.
pub fn quantise_nf4(values: &Tensor, double_quant: bool) -> Result<Quantised, Error> {
    let check = Check { kernel: "quantise_nf4", device: values.device() };
    let kind = values.kind();
    check.tensor("values", values, kind, &values.size())?;
    let count = values.numel() as i64;
    // Scales are counted in 32 bits.
    check.require(count < 1 << 36, || format!("{count} values are too many"))?;
    if !check.device.is_cuda() {
        let (codes, scales) = reference(&check, values, double_quant)?;
        return Ok(Quantised { check, count, state: State::Done(codes, scales) });
    }
    let launch = |function| Launch::new(&SOURCE, function, kind, check.device);
    let blocks = ceil_div(count, BLOCK as i64);
    let grid = ceil_div(count, BLOCK_VALUES);
    let quantise = |codes: i64, scales: i64, partials: i64| {
        let address = values.data_ptr() as usize;
        launch("quantise_nf4")?
            .long(address as i64)
            .long(count)
            .int(i64::from(address.is_multiple_of(16)))
            .long(codes)
            .long(scales)
            .long(partials)
            .run([grid as u32, 1, 1], THREADS, 0)
    };
    if !double_quant {
        let parts = Parts::new([ceil_div(count, 2), 4 * blocks], check.device)?;
        let [codes, scales] = parts.addresses();
        quantise(codes, scales, 0)?;
        return Ok(Quantised { check, count, state: State::Plain(parts) });
    }
    let map = map_on(check.device)?;
    let nested_blocks = ceil_div(blocks, NESTED_BLOCK as i64);
    let kept = Parts::new([ceil_div(count, 2), blocks, 4 * nested_blocks], check.device)?;
    let passing = Parts::new([4 * blocks, PARTIAL_BYTES * grid, 4], check.device)?;
    let ([codes, nested_codes, absmax], [scales, partials, mean]) = (kept.addresses(), passing.addresses());
    quantise(codes, scales, partials)?;
    let launch_mean = launch("mean_scale")?.long(scales).int(blocks).long(partials).int(grid).long(mean);
    launch_mean.run([1, 1, 1], 1024, 0)?;
    launch("quantise_scales")?.long(scales).int(blocks).long(mean).tensor(&map).long(nested_codes).long(absmax).run(
        [ceil_div(nested_blocks, 8) as u32, 1, 1],
        THREADS,
        0,
    )?;
    Ok(Quantised { check, count, state: State::Nested { kept, passing, map } })
}

impl Quantised {
    /// The codes, two a byte, the first in the high half, uint8, `[ceil(n / 2)]`, and a scale for 64 flat values. Waits for
    /// the device: whether all values are finite, and the mean of the scales, are known there. Codes and scales are parts of
    /// one allocation.
    ///
    /// # Errors
    /// If a value is NaN or infinite, or the device fails.
    pub fn finish(self) -> Result<(Tensor, Scales), Error> {
        let Self { check, count, state } = self;
        match state {
            State::Done(codes, scales) => Ok((codes, scales)),
            State::Plain(parts) => {
                let scales = parts.part(1, Kind::Float)?;
                // The largest is NaN where one of them is.
                if count > 0 && !f64::try_from(scales.f_max()?)?.is_finite() {
                    return Err(first_not_finite(&check, count, &scales)?);
                }
                Ok((parts.part(0, Kind::Uint8)?, Scales::Plain(scales)))
            }
            State::Nested { kept, passing, map } => {
                let offset = f64::try_from(passing.part(2, Kind::Float)?)? as f32;
                if !offset.is_finite() {
                    return Err(first_not_finite(&check, count, &passing.part(0, Kind::Float)?)?);
                }
                let (codes, absmax) = (kept.part(1, Kind::Uint8)?, kept.part(2, Kind::Float)?);
                let scales = Scales::Nested { codes, map, absmax, offset, block: NESTED_BLOCK as i64 };
                Ok((kept.part(0, Kind::Uint8)?, scales))
            }
        }
    }
}

/// Names the first block with a value that is not finite.
fn first_not_finite(check: &Check, count: i64, scales: &Tensor) -> Result<Error, Error> {
    let scales = Vec::<f32>::try_from(scales.f_to_device(Device::Cpu)?)?;
    let start = scales.iter().position(|scale| !scale.is_finite()).unwrap_or(0) * BLOCK;
    Ok(not_finite(check, start, (count as usize).min(start + BLOCK)))
}

/// Parts of one allocation: libtorch takes about as long for an allocation as for half a launch.
#[derive(Debug)]
struct Parts<const N: usize> {
    memory: Tensor,
    /// First byte of each, and how many there are.
    places: [(i64, i64); N],
}

impl<const N: usize> Parts<N> {
    fn new(bytes: [i64; N], device: Device) -> Result<Self, Error> {
        let mut end = 0;
        let places = bytes.map(|bytes| {
            let start = end;
            // As vector loads and stores ask for.
            end += (bytes + 15) / 16 * 16;
            (start, bytes)
        });
        Ok(Self { memory: Tensor::f_empty([end], (Kind::Uint8, device))?, places })
    }

    fn addresses(&self) -> [i64; N] {
        let first = self.memory.data_ptr() as i64;
        self.places.map(|(start, _)| first + start)
    }

    /// One of them as a tensor.
    fn part(&self, number: usize, kind: Kind) -> Result<Tensor, Error> {
        let (start, bytes) = self.places[number];
        Ok(self.memory.f_narrow(0, start, bytes)?.f_view_dtype(kind)?)
    }
}

/// The map of scales on a device, brought there once. Nobody writes to it.
fn map_on(device: Device) -> Result<Tensor, Error> {
    static MAPS: Mutex<Vec<(Device, Tensor)>> = Mutex::new(Vec::new());
    let mut maps = MAPS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, map)) = maps.iter().find(|(of, _)| *of == device) {
        return Ok(map.shallow_clone());
    }
    let map = upload(&DYNAMIC_MAP, device)?;
    maps.push((device, map.shallow_clone()));
    Ok(map)
}

fn ceil_div(count: i64, size: i64) -> i64 {
    (count + size - 1) / size
}

fn reference(check: &Check, values: &Tensor, double_quant: bool) -> Result<(Tensor, Scales), Error> {
    let values = Vec::<f32>::try_from(values.f_to_kind(Kind::Float)?.f_view(-1)?)?;
    let tensor = QuantizedTensor::quantize(&values, &[values.len()], SourceType::Float32, double_quant);
    let tensor = tensor.map_err(|error| match error {
        pipe_nf4::Error::NotFinite { start, end } => not_finite(check, start, end),
        other => check.wrong(other.to_string()),
    })?;
    let bytes = |bytes: &[u8]| Tensor::f_from_slice(bytes);
    let scales = match tensor.absmax() {
        Absmax::Plain(absmax) => Scales::Plain(Tensor::f_from_slice(absmax)?),
        Absmax::Nested(NestedAbsmax { codes, absmax, offset, map, block }) => Scales::Nested {
            codes: bytes(codes)?,
            map: Tensor::f_from_slice(map)?,
            absmax: Tensor::f_from_slice(absmax)?,
            offset: *offset,
            block: *block as i64,
        },
    };
    Ok((bytes(tensor.packed())?, scales))
}

fn not_finite(check: &Check, start: usize, end: usize) -> Error {
    check.wrong(format!("a value among {start} to {end} is NaN or infinite"))
}
