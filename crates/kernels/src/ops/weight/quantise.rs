//! Quantisation to NF4 where the values are.

use pipe_nf4::{Absmax, BLOCK, DYNAMIC_MAP, NESTED_BLOCK, NestedAbsmax, QuantizedTensor, SourceType};
use tch::{Device, Kind, Tensor};

use super::{SOURCE, Scales};
use crate::{Error, launch::Launch, ops::check::Check, readback::upload};

const THREADS: u32 = 256;
/// Blocks that sum scales: more would only write more for the host to read.
const MOST_BLOCKS: i64 = 66;

/// What [`quantise_nf4`] gives: the codes and scales of an [`Nf4`](super::Nf4), whose `block` is 64.
#[derive(Debug)]
pub struct Quantised {
    /// Two codes a byte, the first in the high half, uint8, `[ceil(n / 2)]`.
    pub codes: Tensor,
    /// A scale for 64 flat values.
    pub scales: Scales,
}

/// Quantises to NF4 on the device of the values: byte for byte what `pipe_nf4::QuantizedTensor::quantize` gives. Waits
/// for the device: some sums of scales go to the host, which takes their mean. Where the order of a sum matters, all of
/// them do.
///
/// # Shapes
/// `values`: any, in row-major order, contiguous; on CUDA float32, bfloat16 or float16.
///
/// # Errors
/// If a value is NaN or infinite, the operands do not fit, or the device refuses.
///
/// # Source
/// Dettmers et al., QLoRA, arXiv:2305.14314, section 3; bitsandbytes, `kQuantizeBlockwise`.
pub fn quantise_nf4(values: &Tensor, double_quant: bool) -> Result<Quantised, Error> {
    let check = Check { kernel: "quantise_nf4", device: values.device() };
    check.tensor("values", values, values.kind(), &values.size())?;
    let count = values.numel() as i64;
    // Scales are counted in 32 bits.
    check.require(count < 1 << 36, || format!("{count} values are too many"))?;
    if !check.device.is_cuda() {
        return reference(&check, values, double_quant);
    }
    let floats = (Kind::Float, check.device);
    let bytes = (Kind::Uint8, check.device);
    let blocks = (count + BLOCK as i64 - 1) / BLOCK as i64;
    let codes = Tensor::f_empty([(count + 1) / 2], bytes)?;
    let scales = Tensor::f_empty([blocks], floats)?;
    let aligned = (values.data_ptr() as usize).is_multiple_of(16);
    Launch::new(&SOURCE, "quantise_nf4", values.kind(), check.device)?
        .tensor(values)
        .long(count)
        .int(i64::from(aligned))
        .tensor(&codes)
        .tensor(&scales)
        .run([((count + 2047) / 2048) as u32, 1, 1], THREADS, 0)?;
    let grid = ((blocks + 1023) / 1024).clamp(1, MOST_BLOCKS);
    let partials = Tensor::f_empty([grid * i64::from(THREADS / 32), 3], (Kind::Double, check.device))?;
    Launch::new(&SOURCE, "sum_scales", Kind::Float, check.device)?.tensor(&scales).int(blocks).tensor(&partials).run(
        [grid as u32, 1, 1],
        THREADS,
        0,
    )?;
    let partials = Vec::<f64>::try_from(partials.f_to_device(Device::Cpu)?.f_view(-1)?)?;
    let offset = match exact_mean(partials.as_chunks().0, blocks as usize) {
        Some(mean) => mean,
        None => {
            let on_host = Vec::<f32>::try_from(scales.f_to_device(Device::Cpu)?)?;
            if let Some(block) = on_host.iter().position(|scale| !scale.is_finite()) {
                let start = block * BLOCK;
                return Err(not_finite(&check, start, values.numel().min(start + BLOCK)));
            }
            mean(&on_host)
        }
    };
    if !double_quant {
        return Ok(Quantised { codes, scales: Scales::Plain(scales) });
    }
    let map = upload(&DYNAMIC_MAP, check.device)?;
    let nested_codes = Tensor::f_empty([blocks], bytes)?;
    let nested_blocks = (blocks + NESTED_BLOCK as i64 - 1) / NESTED_BLOCK as i64;
    let absmax = Tensor::f_empty([nested_blocks], floats)?;
    Launch::new(&SOURCE, "quantise_scales", Kind::Float, check.device)?
        .tensor(&scales)
        .int(blocks)
        .float(offset)
        .tensor(&map)
        .tensor(&nested_codes)
        .tensor(&absmax)
        .run([((nested_blocks + 7) / 8) as u32, 1, 1], THREADS, 0)?;
    let block = NESTED_BLOCK as i64;
    Ok(Quantised { codes, scales: Scales::Nested { codes: nested_codes, map, absmax, offset, block } })
}

fn reference(check: &Check, values: &Tensor, double_quant: bool) -> Result<Quantised, Error> {
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
    Ok(Quantised { codes: bytes(tensor.packed())?, scales })
}

/// In float64 and in the order of the index, as `NestedAbsmax::quantize` takes it.
fn mean(scales: &[f32]) -> f32 {
    let sum: f64 = scales.iter().map(|scale| f64::from(*scale)).sum();
    if scales.is_empty() { 0.0 } else { (sum / scales.len() as f64) as f32 }
}

/// [`mean`] of what the parts of `count` scales say of themselves: sum, bits of the largest, and exponent of the lowest bit
/// that any of them has. `None` if one is not finite, or if the sum may depend on its order.
///
/// Scales are not negative and multiples of that lowest bit. If the sum is below 2^53 of these, so is every part of it in
/// any order, and none was rounded.
fn exact_mean(partials: &[[f64; 3]], count: usize) -> Option<f32> {
    let sum: f64 = partials.iter().map(|[sum, ..]| sum).sum();
    let most = partials.iter().map(|[_, most, _]| *most).fold(0.0, f64::max);
    let lowest = partials.iter().map(|[.., lowest]| *lowest).fold(f64::INFINITY, f64::min);
    // float32 counts exponents from 127 on; 23 digits stand behind the point.
    let exact = most < f64::from(f32::INFINITY.to_bits()) && sum < (lowest - 150.0 + 53.0).exp2();
    exact.then(|| if count == 0 { 0.0 } else { (sum / count as f64) as f32 })
}

fn not_finite(check: &Check, start: usize, end: usize) -> Error {
    check.wrong(format!("a value among {start} to {end} is NaN or infinite"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::testing::{cuda, normal};

    /// All parts on the host, floats as their bits.
    fn parts(quantised: &Quantised) -> (Vec<u8>, Vec<u8>, Vec<i32>, u32) {
        let bytes = |tensor: &Tensor| Vec::<u8>::try_from(tensor.to_device(Device::Cpu)).unwrap();
        let bits = |tensor: &Tensor| Vec::<i32>::try_from(tensor.to_device(Device::Cpu).view_dtype(Kind::Int)).unwrap();
        let codes = bytes(&quantised.codes);
        match &quantised.scales {
            Scales::Plain(scales) => (codes, Vec::new(), bits(scales), 0),
            Scales::Nested { codes: nested, map, absmax, offset, block } => {
                assert_eq!((bits(map), *block), (DYNAMIC_MAP.map(|value| value.to_bits() as i32).to_vec(), 256));
                (codes, bytes(nested), bits(absmax), offset.to_bits())
            }
        }
    }

    /// Values with blocks of zeros, tiny and huge ones, and some exactly on thresholds.
    fn values(count: i64, kind: Kind) -> Tensor {
        let values = normal(&[count], count) * 0.02;
        for (first, scale) in [(0, 0.0), (64, 1e-30), (128, 1e30), (192, 1e-41)] {
            let length = (count - first).clamp(0, 64);
            if length > 0 {
                let _ = values.narrow(0, first, length).g_mul_scalar_(scale);
            }
        }
        for (i, threshold) in pipe_nf4::THRESHOLDS.iter().enumerate().filter(|(i, _)| 300 + *i < count as usize) {
            let _ = values.get(300 + i as i64).fill_(f64::from(*threshold));
        }
        if count > 320 {
            let _ = values.get(319).fill_(1.0);
        }
        values.to_kind(kind)
    }

    #[test]
    fn bytes_are_those_of_the_codec() {
        let Some(device) = cuda() else { return };
        for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
            for count in [1, 7, 63, 64, 65, 333, 4096, 16_384, 16_449, 100_003] {
                let values = values(count, kind);
                // 1e30 is no float16.
                let values = if kind == Kind::Half { values.clamp(-6e4, 6e4) } else { values };
                for double_quant in [false, true] {
                    let expected = quantise_nf4(&values, double_quant).unwrap();
                    let found = quantise_nf4(&values.to_device(device), double_quant).unwrap();
                    assert_eq!(parts(&found), parts(&expected), "{kind:?} {count} {double_quant}");
                }
                // Of these the sum is exact.
                let plain = (normal(&[count], 7) * 0.02).to_kind(kind);
                let found = quantise_nf4(&plain.to_device(device), true).unwrap();
                assert_eq!(parts(&found), parts(&quantise_nf4(&plain, true).unwrap()), "{kind:?} {count}");
                // A view that begins between the places of a vector load.
                let room = Tensor::cat(&[values.narrow(0, 0, 1), values.shallow_clone()], 0).to_device(device);
                let found = quantise_nf4(&room.narrow(0, 1, count), true).unwrap();
                assert_eq!(parts(&found), parts(&quantise_nf4(&values, true).unwrap()), "{kind:?} {count}");
            }
        }
    }

    /// As the kernel does it, for one warp.
    fn partial(scales: &[f32]) -> [f64; 3] {
        let lowest = |scale: &f32| {
            let exponent = (scale.to_bits() >> 23).max(1);
            let digits = if scale.to_bits() >> 23 > 0 { scale.to_bits() | 1 << 23 } else { scale.to_bits() };
            exponent + digits.trailing_zeros()
        };
        let lowest = scales.iter().filter(|scale| **scale != 0.0).map(lowest).min().unwrap_or(278);
        let most = scales.iter().map(|scale| scale.to_bits()).max().unwrap_or(0);
        [scales.iter().map(|scale| f64::from(*scale)).sum(), f64::from(most), f64::from(lowest)]
    }

    #[test]
    fn a_mean_is_exact_or_is_none() {
        let parts = |scales: &[f32]| scales.chunks(100).map(partial).collect::<Vec<_>>();
        // As the largest of 64 values are: none of them is tiny.
        let scales = Vec::<f32>::try_from(normal(&[10_000], 1).abs().clamp_min(0.5) * 0.02).unwrap();
        assert_eq!(exact_mean(&parts(&scales), scales.len()), Some(mean(&scales)));
        // Of another order, too.
        let mut reversed = scales.clone();
        reversed.reverse();
        assert_eq!(exact_mean(&parts(&reversed), scales.len()), Some(mean(&scales)));
        assert_eq!(exact_mean(&parts(&[0.0; 7]), 7), Some(0.0));
        assert_eq!(exact_mean(&parts(&[1e-45, 3e-45]), 2), Some(mean(&[1e-45, 3e-45])));
        assert_eq!(exact_mean(&parts(&[1.0, f32::EPSILON, 2.0_f32.powi(-53)]), 3), None, "1 and its lowest bit");
        assert_eq!(exact_mean(&parts(&[0.5, 2.0_f32.powi(-53)]), 2).map(f32::to_bits), Some(0x3e80_0000));
        for bad in [f32::NAN, f32::INFINITY] {
            assert_eq!(exact_mean(&parts(&[1.0, bad]), 2), None);
        }
    }

    #[test]
    fn values_come_back() {
        let values = normal(&[50, 70], 1);
        for double_quant in [false, true] {
            let Quantised { codes, scales } = quantise_nf4(&values, double_quant).unwrap();
            let weight = super::super::Nf4 { shape: [50, 70], block: 64, codes, scales };
            let found = weight.reference(Kind::Float).unwrap();
            crate::testing::assert_within("values", &found, &values, 0.12);
        }
    }

    #[test]
    fn what_is_not_finite_is_refused() {
        for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
            for bad in [f64::NAN, f64::INFINITY] {
                let values = normal(&[200], 1).to_device(device);
                let _ = values.get(130).fill_(bad);
                let message = quantise_nf4(&values, true).unwrap_err().to_string();
                assert!(message.contains("a value among 128 to 192 is NaN or infinite"), "{message}");
            }
        }
    }
}
