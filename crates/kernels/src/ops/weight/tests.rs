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

/// A group with one part of each sort, adapters on the outer two and a bias on two, in the way of a test.
fn group(width: i64, rows: [i64; 3], ranks: [Option<i64>; 3], bias: bool, kind: Kind, device: Device) -> Tensor {
    let parts = [
        packed([rows[0], width], 1, true, device),
        Weight::Dense((normal(&[rows[1], width], 2) * 0.02).to_kind(kind).to_device(device)),
        packed([rows[2], width], 3, false, device),
    ];
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
    let found = group(width, rows, [Some(3), None, Some(5)], true, Kind::Double, Device::Cpu);
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
