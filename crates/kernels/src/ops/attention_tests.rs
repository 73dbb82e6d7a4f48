//! Attention: the kernel beside the plain products, and these beside a loop.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
use super::*;
use crate::testing::{assert_within, cuda, normal};

const LENGTHS: [&[usize]; 6] =
    [&[1], &[3, 64, 65], &[384; 8], &[140, 32, 33, 200, 97, 384, 61, 128], &[5, 0, 70], &[7, 1025]];

fn rows(lengths: &[usize]) -> i64 {
    lengths.iter().sum::<usize>() as i64
}

/// dy, q, k, v, float32 on the CPU.
fn operands(tokens: i64, heads: i64, groups: i64, width: i64) -> [Tensor; 4] {
    [
        normal(&[tokens, heads * width], 1),
        normal(&[tokens, heads, width], 2),
        normal(&[tokens, groups, width], 3),
        normal(&[tokens, groups, width], 4),
    ]
}

fn both(operands: &[Tensor; 4], packing: &Packing, scale: f64) -> [Tensor; 4] {
    let [dy, q, k, v] = operands;
    let attended = attention(q, k, v, packing, scale).unwrap();
    let [dq, dk, dv] = attention_backward(dy, [q, k, v], &attended, packing, scale).unwrap();
    [attended.output, dq, dk, dv]
}

#[test]
fn the_kernel_agrees_with_the_reference() {
    let Some(device) = cuda() else { return };
    for kind in [Kind::BFloat16, Kind::Half, Kind::Float] {
        for (heads, groups, width) in
            [(16, 8, 128), (32, 8, 128), (4, 4, 128), (6, 2, 64), (4, 2, 80), (4, 2, 96), (2, 1, 40)]
        {
            for lengths in LENGTHS {
                let tokens = rows(lengths);
                let scale = (width as f64).powf(-0.5);
                let rounded = operands(tokens, heads, groups, width).map(|tensor| tensor.to_kind(kind));
                let expected = both(
                    &rounded.each_ref().map(|tensor| tensor.to_kind(Kind::Float)),
                    &Packing::new(lengths, Device::Cpu).unwrap(),
                    scale,
                );
                let packing = Packing::new(lengths, device).unwrap();
                let [dy, q, k, v] = rounded.map(|tensor| tensor.to_device(device));
                // Rows apart, with NaN between them and behind the last; results in memory that held NaN.
                let apart = |tensor: &Tensor, distance: i64| {
                    let (flat, size) = (tensor.view([tokens, -1]), tensor.size());
                    let wide = Tensor::full([tokens + 64, flat.size()[1] + distance], f64::NAN, (kind, device));
                    let place = wide.narrow(0, 0, tokens).narrow(1, 0, flat.size()[1]);
                    place.shallow_clone().copy_(&flat);
                    if size.len() == 3 { place.unflatten(1, &size[1..]) } else { place }
                };
                let given = [apart(&dy, 8), apart(&q, 0), apart(&k, 16), apart(&v, 24)];
                drop(
                    [heads, heads, groups, groups]
                        .map(|heads| Tensor::full([tokens, heads, width], f64::NAN, (kind, device))),
                );
                let found = both(&given, &packing, scale);
                // Odd distances between rows: copies.
                let copied = both(&[apart(&dy, 3), apart(&q, 1), apart(&k, 5), apart(&v, 7)], &packing, scale);
                let tolerance = match kind {
                    Kind::BFloat16 => 6e-3,
                    Kind::Half => 1e-3,
                    _ => 2e-5,
                };
                for (((name, found), expected), copied) in
                    ["y", "dq", "dk", "dv"].iter().zip(&found).zip(&expected).zip(&copied)
                {
                    // A sample of one token has zero gradients of queries and keys, whose size says nothing.
                    let scale = if tokens == 1 { 1.0 } else { 0.0 };
                    let name = format!("{name} of {lengths:?}, {heads}/{groups} heads {width} wide, {kind:?}");
                    assert_within(&name, &(found.to_kind(Kind::Float) + scale), &(expected + scale), tolerance);
                    let ours = takes(device, kind, width, packing.longest);
                    assert!(!ours || found.equal(copied), "{name}: other bytes in a second run");
                }
            }
        }
    }
}

#[test]
fn samples_do_not_see_each_other_nor_the_future() {
    let devices = [Some((Device::Cpu, Kind::Double)), cuda().map(|device| (device, Kind::BFloat16))];
    for (device, kind) in devices.into_iter().flatten() {
        let lengths = [70, 90, 5];
        let packing = Packing::new(&lengths, device).unwrap();
        let tensors = operands(rows(&lengths), 4, 2, 64).map(|tensor| tensor.to_kind(kind).to_device(device));
        let before = both(&tensors, &packing, 0.125);
        let after = |value: f64| {
            for tensor in &tensors {
                let _ = tensor.narrow(0, 100, 1).fill_(value);
            }
            both(&tensors, &packing, 0.125)
        };
        let same = |after: &[Tensor; 4], index: usize, first, length| {
            before[index].narrow(0, first, length).equal(&after[index].narrow(0, first, length))
        };
        let poisoned = after(f64::NAN);
        for index in 0..4 {
            let others = same(&poisoned, index, 0, 70) && same(&poisoned, index, 160, 5);
            assert!(others, "another sample, {index} on {device:?}");
        }
        let moved = after(2.0);
        assert!(same(&moved, 0, 70, 30) && same(&moved, 1, 70, 30), "the past on {device:?}");
        assert!(!same(&moved, 0, 100, 1));
    }
}

#[test]
fn the_reference_agrees_with_finite_differences() {
    let packing = Packing::new(&[3, 4], Device::Cpu).unwrap();
    let tensors = operands(7, 4, 2, 6).map(|tensor| tensor.to_kind(Kind::Double));
    let [_, gradients @ ..] = both(&tensors, &packing, 0.4);
    let [dy, q, k, v] = &tensors;
    let loss = || (attention(q, k, v, &packing, 0.4).unwrap().output * dy).sum(None::<Kind>).double_value(&[]);
    for (tensor, gradient) in [q, k, v].into_iter().zip(&gradients) {
        let (flat, gradient) = (tensor.view(-1), gradient.contiguous().view(-1));
        for index in 0..flat.size()[0] {
            let value = flat.double_value(&[index]);
            let moved = |difference: f64| {
                let _ = flat.get(index).fill_(value + difference);
                loss()
            };
            let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
            let _ = moved(0.0);
            assert!((slope - gradient.double_value(&[index])).abs() < 1e-8, "value {index}");
        }
    }
}

#[test]
fn operands_are_checked() {
    let packing = Packing::new(&[2, 3], Device::Cpu).unwrap();
    let message = |q: [i64; 3], k: [i64; 3], v: [i64; 3], scale| {
        attention(&normal(&q, 1), &normal(&k, 1), &normal(&v, 1), &packing, scale).unwrap_err().to_string()
    };
    let key = [5, 2, 8];
    assert!(message([4, 4, 8], [4, 2, 8], [4, 2, 8], 1.0).contains("4 rows are not the 5 packed ones"));
    assert!(message([5, 4, 8], key, [5, 1, 8], 1.0).contains("do not fit q [5, 4, 8]"));
    assert!(message([5, 3, 8], key, key, 1.0).contains("2 key heads do not divide 3"));
    assert!(message([5, 4, 8], key, key, 0.0).contains("the scale 0 is not positive"));
    let [q, k] = [normal(&[5, 4, 8], 1), normal(&key, 1)];
    assert!(attention(&q, &k, &k.to_kind(Kind::Half), &packing, 1.0).unwrap_err().to_string().contains("v is Half"));
    let attended = attention(&q, &k, &k, &packing, 1.0).unwrap();
    let error = attention_backward(&q, [&q, &k, &k], &attended, &packing, 1.0).unwrap_err().to_string();
    assert!(error.contains("dy must have rows of [5, 32]"), "{error}");
}

#[test]
fn what_the_kernel_takes() {
    let cuda = Device::Cuda(0);
    assert!(takes(cuda, Kind::BFloat16, 128, 512) && takes(cuda, Kind::Half, 80, 1));
    assert!(!takes(Device::Cpu, Kind::BFloat16, 128, 512) && !takes(cuda, Kind::Float, 128, 512));
    assert!(!takes(cuda, Kind::BFloat16, 72, 512) && !takes(cuda, Kind::BFloat16, 128, LONGEST + 1));
}
