//! Every case of the references, bit for bit.

use std::path::Path;

use half::bf16;
use pipe_hf::Checkpoint;
use pipe_nf4::{Absmax, BLOCK, CODE_VALUES, DYNAMIC_MAP, NestedAbsmax, THRESHOLDS, dequantize_blocks, quantize_blocks};

const CASES: [&str; 17] = [
    "crossrow_bf16",
    "crossrow_f32",
    "denormal_f32",
    "equal_absmax_f32",
    "fltmax_f32",
    "gauss_bf16",
    "gauss_f32",
    "huge_f32",
    "many_blocks_f32",
    "outlier_f32",
    "tail_1d_bf16",
    "tail_f32",
    "ties_f32",
    "tiny_f32",
    "zero_block_f32",
    "zero_tail_f32",
    "zeros_bf16",
];

struct Cases(Checkpoint);

impl Cases {
    fn open() -> Self {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/cases.safetensors");
        Self(Checkpoint::open_file(&path).unwrap())
    }

    /// The tensor by the rule of the CUDA kernels, which is the CPU's unless there is one of its own.
    fn by_our_rule(&self, case: &str, part: &str) -> String {
        let own = format!("{case}.cuda_{part}");
        if self.0.contains(&own) { own } else { format!("{case}.{part}") }
    }

    fn floats(&self, name: &str) -> Vec<f32> {
        self.0.read_f32(name).unwrap()
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        self.0.read(name).unwrap()
    }
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

fn quantize(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut packed = vec![0; values.len().div_ceil(2)];
    let mut absmax = vec![0.0; values.len().div_ceil(BLOCK)];
    quantize_blocks(values, &mut packed, &mut absmax);
    (packed, absmax)
}

fn dequantize(packed: &[u8], absmax: &[f32], elements: usize) -> Vec<f32> {
    let mut values = vec![0.0; elements];
    dequantize_blocks(packed, absmax, BLOCK, &mut values);
    values
}

#[test]
fn every_case_is_listed() {
    let cases = Cases::open();
    let inputs: Vec<_> = cases.0.names().filter_map(|name| name.strip_suffix(".input")).collect();
    assert_eq!(inputs, CASES);
}

#[test]
fn codes_and_scales() {
    let cases = Cases::open();
    for case in CASES {
        let (packed, absmax) = quantize(&cases.floats(&format!("{case}.input")));
        assert_eq!(packed, cases.bytes(&cases.by_our_rule(case, "packed")), "{case}");
        assert_eq!(bits(&absmax), bits(&cases.floats(&cases.by_our_rule(case, "absmax"))), "{case}");
    }
}

#[test]
fn nested_codes_and_scales() {
    let cases = Cases::open();
    for case in CASES {
        let absmax = cases.floats(&cases.by_our_rule(case, "absmax"));
        let offset = cases.floats(&cases.by_our_rule(case, "offset"))[0];
        // The offset is a mean, whose last bits depend on the order of the sum.
        let ours = NestedAbsmax::quantize(&absmax).offset;
        assert!((ours - offset).abs() <= 4.0 * f32::EPSILON * offset.abs(), "{case}: {ours} {offset}");
        let nested = NestedAbsmax::quantize_with_offset(&absmax, offset);
        assert_eq!(nested.codes, cases.bytes(&cases.by_our_rule(case, "nested_codes")), "{case}");
        assert_eq!(bits(&nested.absmax), bits(&cases.floats(&cases.by_our_rule(case, "nested_absmax"))), "{case}");
    }
}

#[test]
fn restored_values() {
    let cases = Cases::open();
    let mut compared = 0;
    for case in CASES {
        let elements = cases.0.info(&format!("{case}.input")).unwrap().elements();
        let part = |part: &str| format!("{case}.{part}");
        let nested = NestedAbsmax {
            codes: cases.bytes(&part("nested_codes")),
            absmax: cases.floats(&part("nested_absmax")),
            ..NestedAbsmax::quantize_with_offset(&[], cases.floats(&part("offset"))[0])
        };
        let restored_absmax = Absmax::Nested(nested).dequantize();
        assert_eq!(bits(&restored_absmax), bits(&cases.floats(&part("absmax_dq"))), "{case}");

        let packed = cases.bytes(&part("packed"));
        for (absmax, prefix) in [(cases.floats(&part("absmax")), ""), (restored_absmax, "nested_")] {
            let values = dequantize(&packed, &absmax, elements);
            let name = part(&format!("{prefix}deq_f32"));
            if cases.0.contains(&name) {
                assert_eq!(bits(&values), bits(&cases.floats(&name)), "{name}");
                compared += 1;
            }
            let name = part(&format!("{prefix}deq_bf16"));
            let rounded: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
            assert_eq!(rounded, cases.bytes(&name), "{name}");
            compared += 1;
        }
    }
    assert_eq!(compared, 62);
}

#[test]
fn tables() {
    let text = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tables.json")).unwrap();
    let tables: serde_json::Value = serde_json::from_slice(&text).unwrap();
    for (name, table) in [("code", &CODE_VALUES[..]), ("threshold", &THRESHOLDS[..]), ("dynamic_map", &DYNAMIC_MAP[..])]
    {
        let expected: Vec<f32> =
            tables[name].as_array().unwrap().iter().map(|value| value.as_f64().unwrap() as f32).collect();
        assert_eq!(bits(table), bits(&expected), "{name}");
    }
}
