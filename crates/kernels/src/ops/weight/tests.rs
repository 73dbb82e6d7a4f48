//! Unpacked weights: the bits of the codec, on the CPU and on a card.
#![allow(clippy::unwrap_used, reason = "a test may panic")]
#![expect(non_snake_case, reason = "shape suffixes")]
use pipe_nf4::{QuantizedTensor, SourceType};

use super::*;
use crate::testing::{cuda, normal};

/// One packed weight of a shape, on a device.
fn packed(shape: [i64; 2], seed: i64, double_quant: bool, device: Device) -> Weight {
    let values = Vec::<f32>::try_from((normal(&shape, seed) * 0.02).flatten(0, -1)).unwrap();
    let sides = shape.map(|side| side as usize);
    let tensor = QuantizedTensor::quantize(&values, &sides, SourceType::Bfloat16, double_quant).unwrap();
    Weight::Nf4(Nf4::new(&tensor, shape, device).unwrap())
}

/// The same in 8 bits.
fn in_8_bits(shape: [i64; 2], seed: i64, device: Device) -> Weight {
    let Int8 { codes, absmax } = quantise_int8(&(normal(&shape, seed) * 0.02)).unwrap();
    Weight::Int8(Int8 { codes: codes.to_device(device), absmax: absmax.to_device(device) })
}

/// A group with one part of each sort, adapters on the outer two and a bias on two, in the way of a test.
fn group(width: i64, rows: [i64; 3], ranks: [Option<i64>; 3], bias: bool, kind: Kind, device: Device) -> Tensor {
    let dense = |number: usize, seed| {
        Weight::Dense((normal(&[rows[number], width], seed) * 0.02).to_kind(kind).to_device(device))
    };
    let nf4 = [packed([rows[0], width], 1, true, device), dense(1, 2), packed([rows[2], width], 3, false, device)];
    let first = of_parts(&nf4, width, rows, ranks, bias, kind, device);
    let int8 = [in_8_bits([rows[0], width], 11, device), packed([rows[1], width], 12, true, device), dense(2, 13)];
    let second = of_parts(&int8, width, rows, ranks, bias, kind, device);
    let all = [1, 2, 3].map(|number: i64| in_8_bits([rows[number as usize - 1], width], 20 + number, device));
    let third = of_parts(&all, width, rows, ranks, bias, kind, device);
    Tensor::cat(&[first, second, third], 0)
}

fn of_parts(
    parts: &[Weight; 3],
    width: i64,
    rows: [i64; 3],
    ranks: [Option<i64>; 3],
    bias: bool,
    kind: Kind,
    device: Device,
) -> Tensor {
    let layout = Layout::new(width, &ranks, bias);
    let a_RI = Tensor::zeros([1, 1], (master(kind), device));
    let b: Vec<Tensor> = layout
        .adapters
        .iter()
        .map(|columns| {
            normal(&[rows[columns.part], columns.rank], 4 + columns.part as i64).to_kind(master(kind)).to_device(device)
        })
        .collect();
    let adapters: Vec<Adapter<'_>> =
        b.iter().map(|b_OR| Adapter { a_RI: &a_RI, b_OR, module: 0, factor: 1.0 }).collect();
    let own = normal(&[rows[0]], 8).to_kind(kind).to_device(device);
    let wide = normal(&[rows[2]], 9).to_kind(master(kind)).to_device(device);
    let biases: &[Option<&Tensor>] = if bias { &[Some(&own), None, Some(&wide)] } else { &[] };
    materialise(&[&parts[0], &parts[1], &parts[2]], biases, &layout, &adapters, kind).unwrap()
}

const SHAPES: [(i64, [i64; 3]); 6] = [
    (64, [1, 2, 3]),
    (1024, [128, 64, 72]),
    (192, [50, 7, 33]),
    (72, [65, 9, 100]),
    (50, [3, 4, 5]),
    (11, [7, 300, 1]),
];

#[test]
fn the_kernel_gives_the_bits_of_the_reference() {
    let Some(device) = cuda() else { return };
    for kind in [Kind::Float, Kind::BFloat16, Kind::Half] {
        for (width, rows) in SHAPES {
            for (ranks, bias) in
                [([None; 3], false), ([Some(8), None, Some(16)], false), ([Some(3), None, Some(5)], true)]
            {
                let expected = group(width, rows, ranks, bias, kind, Device::Cpu);
                let found = group(width, rows, ranks, bias, kind, device);
                let again = group(width, rows, ranks, bias, kind, device);
                let bits = |tensor: &Tensor| match kind {
                    Kind::Float => tensor.view_dtype(Kind::Int).to_device(Device::Cpu),
                    _ => tensor.view_dtype(Kind::Int16).to_device(Device::Cpu),
                };
                assert_eq!(bits(&found), bits(&expected), "{kind:?} {width} {rows:?} {ranks:?}");
                assert_eq!(bits(&found), bits(&again));
            }
        }
    }
}

#[test]
fn every_column_is_what_the_layout_says() {
    let (width, rows) = (50, [3, 4, 5]);
    // The first of the groups.
    let found = group(width, rows, [Some(3), None, Some(5)], true, Kind::Double, Device::Cpu).narrow(0, 0, 12);
    assert_eq!(found.size(), [12, 64]);
    let number = |row: i64, column: i64| found.double_value(&[row, column]);
    let [b0, b2] = [normal(&[3, 3], 4), normal(&[5, 5], 6)];
    let [own, wide] = [normal(&[3], 8), normal(&[5], 9)];
    let dense = (normal(&[4, 50], 2) * 0.02).to_kind(Kind::Double);
    for row in 0..12 {
        for column in 50..64 {
            let expected = match (row, column) {
                (0..3, 50..53) => b0.double_value(&[row, column - 50]),
                (7.., 53..58) => b2.double_value(&[row - 7, column - 53]),
                (0..3, 58) => own.double_value(&[row]),
                (7.., 58) => wide.double_value(&[row - 7]),
                _ => 0.0,
            };
            assert_eq!(number(row, column), expected, "({row}, {column})");
        }
    }
    assert_eq!(found.narrow(0, 3, 4).narrow(1, 0, 50), dense);
    let Weight::Nf4(weight) = packed([5, 50], 3, false, Device::Cpu) else { panic!("not packed") };
    assert_eq!(found.narrow(0, 7, 5).narrow(1, 0, 50), weight.reference(Kind::Double).unwrap());
}

/// Codes, scales and values of `tests/fixtures/int8.safetensors`, which bitsandbytes made.
#[test]
fn codes_of_8_bits_are_those_of_bitsandbytes() {
    let bytes = include_bytes!("../../../tests/fixtures/int8.safetensors");
    let file = safetensors::SafeTensors::deserialize(bytes).unwrap();
    let tensor = |name: String| {
        let view = file.tensor(&name).unwrap();
        let shape: Vec<i64> = view.shape().iter().map(|side| *side as i64).collect();
        let kind = match view.dtype() {
            safetensors::Dtype::F32 => Kind::Float,
            safetensors::Dtype::F16 => Kind::Half,
            safetensors::Dtype::BF16 => Kind::BFloat16,
            safetensors::Dtype::I8 => Kind::Int8,
            other => panic!("{other:?}"),
        };
        Tensor::f_from_data_size(view.data(), &shape, kind).unwrap()
    };
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        for name in ["float32", "bfloat16", "float16", "ties"] {
            let of = |part: &str| tensor(format!("{name}.{part}")).to_device(device);
            let found = quantise_int8(&of("weight")).unwrap();
            assert!(found.codes.equal(&of("codes")), "{name} {device:?}");
            assert!(found.absmax.equal(&of("absmax")), "{name} {device:?}");
            let [rows, width] = found.shape();
            let layout = Layout::new(width, &[None], false);
            for (kind, values) in [(Kind::Half, "values_f16"), (Kind::Float, "values_f32")] {
                let weight = Weight::Int8(Int8 { codes: of("codes"), absmax: of("absmax") });
                let values_OI = materialise(&[&weight], &[], &layout, &[], kind).unwrap();
                assert_eq!(values_OI.size(), [rows, width]);
                assert!(values_OI.equal(&of(values)), "{name} {kind:?} {device:?}");
            }
        }
    }
}

#[test]
fn rows_of_zeros_and_what_is_not_finite() {
    for device in [Some(Device::Cpu), cuda()].into_iter().flatten() {
        let weight = normal(&[3, 10], 1).to_device(device);
        let _ = weight.get(1).zero_();
        let found = quantise_int8(&weight).unwrap();
        assert_eq!(found.codes.get(1).abs().max().int64_value(&[]), 0);
        assert_eq!(found.codes.abs().amax([1].as_slice(), false).int64_value(&[0]), 127);
        for bad in [f64::NAN, f64::INFINITY, 1e5] {
            let _ = weight.get(2).get(4).fill_(bad);
            let message = quantise_int8(&weight).unwrap_err().to_string();
            assert!(message.contains("a value of row 2 is NaN, or too large for float16"), "{message}");
        }
    }
}

#[test]
fn a_lone_dense_weight_is_not_copied() {
    let weight = Weight::Dense(normal(&[4, 8], 1));
    let found = materialise(&[&weight], &[], &Layout::new(8, &[None], false), &[], Kind::Float).unwrap();
    let Weight::Dense(weight) = weight else { panic!("not dense") };
    assert_eq!(found.data_ptr(), weight.data_ptr());
}

#[test]
fn operands_are_checked() {
    let weight = Weight::Dense(normal(&[4, 8], 1));
    let message = |parts: &[&Weight], biases: &[Option<&Tensor>], layout: &Layout| {
        materialise(parts, biases, layout, &[], Kind::Float).unwrap_err().to_string()
    };
    let plain = Layout::new(8, &[None], false);
    let bias = normal(&[4], 2);
    assert!(message(&[], &[], &plain).contains("one to 3 parts, not 0"));
    assert!(message(&[&weight], &[], &Layout::new(9, &[None], false)).contains("part 0 is [4, 8] in a layout of 9"));
    assert!(message(&[&weight], &[Some(&bias)], &plain).contains("a bias in a layout without"));
    assert!(message(&[&weight], &[None, None], &plain).contains("2 biases for 1 parts"));
    assert!(message(&[&weight], &[], &Layout::new(8, &[Some(2)], false)).contains("0 adapters in a layout of 1"));
    let half = Weight::Dense(normal(&[4, 8], 1).to_kind(Kind::Half));
    assert!(message(&[&half], &[], &plain).contains("weight must be Float on Cpu, it is Half"));
}
