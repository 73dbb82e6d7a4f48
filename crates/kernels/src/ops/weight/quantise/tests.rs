//! Quantisation on the card against the codec, and what its kernels do, on the CPU.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
use pipe_nf4::THRESHOLDS;

use super::*;
use crate::testing::{cuda, normal};

/// All parts on the host, floats as their bits.
fn parts(quantised: Quantised) -> (Vec<u8>, Vec<u8>, Vec<i32>, u32) {
    let bytes = |tensor: &Tensor| Vec::<u8>::try_from(tensor.to_device(Device::Cpu)).unwrap();
    let bits = |tensor: &Tensor| Vec::<i32>::try_from(tensor.to_device(Device::Cpu).view_dtype(Kind::Int)).unwrap();
    let (codes, scales) = quantised.finish().unwrap();
    let codes = bytes(&codes);
    match &scales {
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
    for (i, threshold) in THRESHOLDS.iter().enumerate().filter(|(i, _)| 300 + *i < count as usize) {
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
                assert_eq!(parts(found), parts(expected), "{kind:?} {count} {double_quant}");
            }
            // Of these the sum is exact.
            let plain = (normal(&[count], 7) * 0.02).to_kind(kind);
            let found = quantise_nf4(&plain.to_device(device), true).unwrap();
            assert_eq!(parts(found), parts(quantise_nf4(&plain, true).unwrap()), "{kind:?} {count}");
            // A view that begins between the places of a vector load.
            let room = Tensor::cat(&[values.narrow(0, 0, 1), values.shallow_clone()], 0).to_device(device);
            let found = quantise_nf4(&room.narrow(0, 1, count), true).unwrap();
            assert_eq!(parts(found), parts(quantise_nf4(&values, true).unwrap()), "{kind:?} {count}");
        }
    }
}

/// `Partial`, as `join_scale` and `join` make it.
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

/// In float64 and in the order of the index, as `NestedAbsmax::quantize` takes it.
fn mean(scales: &[f32]) -> f32 {
    let sum: f64 = scales.iter().map(|scale| f64::from(*scale)).sum();
    if scales.is_empty() { 0.0 } else { (sum / scales.len() as f64) as f32 }
}

/// As `mean_scale` does it; `None` where it is not finite, or adds one after the other.
fn exact_mean(partials: &[[f64; 3]], count: usize) -> Option<f32> {
    let sum: f64 = partials.iter().map(|[sum, ..]| sum).sum();
    let most = partials.iter().map(|[_, most, _]| *most).fold(0.0, f64::max);
    let lowest = partials.iter().map(|[.., lowest]| *lowest).fold(278.0, f64::min);
    let limit = f64::from_bits(u64::from((lowest as u32).wrapping_sub(150).wrapping_add(53 + 1023)) << 52);
    let exact = most < f64::from(f32::INFINITY.to_bits()) && sum < limit;
    exact.then(|| if count == 0 { 0.0 } else { (sum / count as f64) as f32 })
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
        let (codes, scales) = quantise_nf4(&values, double_quant).unwrap().finish().unwrap();
        let weight = crate::ops::Nf4 { shape: [50, 70], block: 64, codes, scales };
        let found = weight.reference(Kind::Float).unwrap();
        crate::testing::assert_within("values", &found, &values, 0.12);
    }
}

#[test]
fn what_is_not_finite_is_refused() {
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        for (bad, double_quant) in [(f64::NAN, true), (f64::INFINITY, true), (f64::NAN, false), (f64::INFINITY, false)]
        {
            for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
                let values = normal(&[5000], 1).to_kind(kind).to_device(device);
                for (place, range) in [(4995, "4992 to 5000"), (130, "128 to 192")] {
                    let _ = values.get(place).fill_(-bad);
                    let result = quantise_nf4(&values, double_quant).and_then(Quantised::finish);
                    let message = result.unwrap_err().to_string();
                    assert!(message.contains(&format!("a value among {range} is NaN or infinite")), "{message}");
                }
            }
        }
    }
}

#[test]
fn nothing_is_quantised() {
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        for double_quant in [false, true] {
            let values = Tensor::zeros([0], (Kind::Float, device));
            let (codes, absmax, scales, offset) = parts(quantise_nf4(&values, double_quant).unwrap());
            assert_eq!((codes.len(), absmax.len(), scales.len(), offset), (0, 0, 0, 0), "{device:?} {double_quant}");
        }
    }
}

#[test]
fn two_runs_give_the_bytes_of_the_codec() {
    let Some(device) = cuda() else { return };
    // Sums of more parts than the block has threads; with the outlier, of all scales in their order.
    let values = normal(&[4_300_001], 5) * 0.02;
    for outlier in [0.01, 1e25] {
        let _ = values.get(4_000_000).fill_(outlier);
        let expected = parts(quantise_nf4(&values, true).unwrap());
        let on_card = values.to_device(device);
        let runs = [(); 2].map(|()| quantise_nf4(&on_card, true).unwrap());
        for run in runs {
            assert!(parts(run) == expected, "{outlier}");
        }
    }
}

#[test]
fn random_sizes_give_the_bytes_of_the_codec() {
    let Some(device) = cuda() else { return };
    let sizes = Vec::<f64>::try_from(normal(&[60], 11).abs().to_kind(Kind::Double)).unwrap();
    for (number, size) in sizes.into_iter().enumerate() {
        let count = 1 + (size * 9000.0) as i64;
        let kind = [Kind::Float, Kind::BFloat16, Kind::Half][number % 3];
        let values = (normal(&[count], number as i64) * 0.02).to_kind(kind);
        for double_quant in [false, true] {
            let found = quantise_nf4(&values.to_device(device), double_quant).unwrap();
            assert_eq!(parts(found), parts(quantise_nf4(&values, double_quant).unwrap()), "{kind:?} {count}");
        }
    }
}

#[test]
fn parts_of_an_allocation_lie_apart() {
    let parts = Parts::new([5, 12, 0, 4], Device::Cpu).unwrap();
    let [first, second, third, last] = parts.addresses();
    assert_eq!([second - first, third - first, last - first], [16, 32, 32]);
    let tensors = [(0, Kind::Uint8), (1, Kind::Float), (2, Kind::Float), (3, Kind::Float)]
        .map(|(number, kind)| parts.part(number, kind).unwrap());
    assert_eq!(tensors.each_ref().map(Tensor::size), [[5], [3], [0], [1]]);
    for (tensor, address) in tensors.iter().zip([first, second, third, last]) {
        assert!(tensor.numel() == 0 || tensor.data_ptr() as i64 == address);
    }
}

/// The numbers of a table in the CUDA source.
fn table(name: &str) -> Vec<u32> {
    let text = SOURCE.text.split_once(&format!(" {name}[32] = {{")).unwrap().1.split_once('}').unwrap().0;
    let number = |word: &str| match word.strip_prefix("0x") {
        Some(digits) => u32::from_str_radix(digits, 16).unwrap(),
        None => word.parse().unwrap(),
    };
    text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(number).collect()
}

/// As `part_of` does it. `saturate` of the device makes NaN 0.
fn part_of(value: f32) -> usize {
    let place = value.mul_add(0.5, 0.5);
    let place = if place > 0.0 { place.min(1.0) } else { 0.0 };
    (place.mul_add(31.0, 8_388_608.0).to_bits() & 31) as usize
}

#[test]
fn parts_hold_a_threshold_at_most() {
    let (thresholds, codes) = (table("PART_THRESHOLDS"), table("PART_CODES"));
    assert_eq!((thresholds.len(), codes.len()), (32, 32));
    for (code, threshold) in THRESHOLDS.iter().enumerate() {
        // In parts; borders lie at halves.
        let place = (f64::from(*threshold) + 1.0) * 15.5;
        let part = place.round() as usize;
        assert!((place - place.floor() - 0.5).abs() > 0.03, "{threshold} is near to a border");
        assert_eq!((thresholds[part], codes[part]), (threshold.to_bits(), code as u32));
    }
    let infinite = thresholds.iter().filter(|bits| **bits == f32::INFINITY.to_bits()).count();
    assert_eq!(infinite, 32 - THRESHOLDS.len(), "no other threshold");
}

#[test]
fn codes_by_parts_are_those_of_all_thresholds() {
    let (thresholds, codes) = (table("PART_THRESHOLDS"), table("PART_CODES"));
    let check = |value: f32| {
        let part = part_of(value);
        let found = codes[part] + u32::from(value > f32::from_bits(thresholds[part]));
        let expected = THRESHOLDS.iter().map(|threshold| u32::from(value > *threshold)).sum::<u32>();
        assert_eq!(found, expected, "{value}");
    };
    let borders = (0..64).map(|half| half as f32 / 31.0 - 1.0);
    for center in THRESHOLDS.into_iter().chain(borders).chain([0.0, 1.0, -1.0]) {
        (0..2001).for_each(|step| check(f32::from_bits((center.to_bits() + step).saturating_sub(1000))));
    }
    (-2_000_200..=2_000_200).for_each(|i| check(i as f32 / 2e6));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE, 1e-45, -1e-45] {
        check(value);
    }
}
