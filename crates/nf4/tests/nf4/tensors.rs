//! Tensors of a checkpoint: written as bitsandbytes writes them, read with suspicion.

use std::{collections::BTreeMap, convert::Infallible};

use pipe_nf4::{
    Absmax, CODE_VALUES, Error, MAX_STATE_BYTES, NestedState, QuantState, QuantizedTensor, SourceType, parts, suffix,
};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";

type Tensors = BTreeMap<String, Vec<u8>>;

fn tensor(double_quant: bool) -> QuantizedTensor {
    let values: Vec<f32> = (0..3 * 100).map(|i| ((i * 37 % 101) as f32 - 50.0) / (7.0 + i as f32)).collect();
    QuantizedTensor::quantize(&values, &[3, 100], SourceType::Bfloat16, double_quant).unwrap()
}

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn stored(tensor: &QuantizedTensor) -> Tensors {
    let mut tensors = Tensors::new();
    let mut put = |suffix: &str, bytes: Vec<u8>| tensors.insert(format!("{NAME}{suffix}"), bytes);
    put("", tensor.packed().to_vec());
    put(suffix::QUANT_MAP, le(&CODE_VALUES));
    put(suffix::QUANT_STATE, tensor.state().to_json().into_bytes());
    match tensor.absmax() {
        Absmax::Plain(absmax) => {
            put(suffix::ABSMAX, le(absmax));
        }
        Absmax::Nested(nested) => {
            put(suffix::ABSMAX, nested.codes.clone());
            put(suffix::NESTED_ABSMAX, le(&nested.absmax));
            put(suffix::NESTED_QUANT_MAP, le(&nested.map));
        }
    }
    tensors
}

fn read(tensors: &Tensors) -> Result<Option<QuantizedTensor>, Error> {
    QuantizedTensor::read(NAME, |name| Ok::<_, Infallible>(tensors.get(name).cloned()))
}

#[test]
fn what_is_stored_comes_back() {
    for double_quant in [false, true] {
        let tensor = tensor(double_quant);
        let tensors = stored(&tensor);
        assert_eq!(read(&tensors).unwrap(), Some(tensor));
        for part in parts(300, double_quant) {
            let bytes = part.shape.iter().product::<usize>() * if part.float { 4 } else { 1 };
            assert_eq!(tensors[&format!("{NAME}{}", part.suffix)].len(), bytes, "{}", part.suffix);
        }
        assert_eq!(tensors.len(), parts(300, double_quant).len() + 1);
    }
}

#[test]
fn a_tensor_without_state_is_not_quantised() {
    assert_eq!(read(&Tensors::from([(NAME.to_owned(), vec![0; 4])])).unwrap(), None);
}

#[test]
fn parts_that_contradict_each_other_are_refused() {
    let good = stored(&tensor(true));
    for suffix in ["", suffix::ABSMAX, suffix::QUANT_MAP, suffix::NESTED_ABSMAX, suffix::NESTED_QUANT_MAP] {
        let name = format!("{NAME}{suffix}");
        let mut tensors = good.clone();
        tensors.remove(&name);
        assert!(matches!(read(&tensors), Err(Error::Missing { name: found }) if found == name));
        let mut tensors = good.clone();
        tensors.get_mut(&name).unwrap().push(0);
        assert!(matches!(read(&tensors), Err(Error::Length { name: found, .. }) if found == name));
    }
}

#[test]
fn states_that_cannot_be_are_refused() {
    let good = stored(&tensor(true));
    let state = String::from_utf8(good[&format!("{NAME}{}", suffix::QUANT_STATE)].clone()).unwrap();
    for (from, to) in [
        (r#""nf4""#, r#""fp4""#),
        (r#""blocksize": 64"#, r#""blocksize": 0"#),
        (r#""blocksize": 64"#, r#""blocksize": 63"#),
        ("[3, 100]", "[0, 100]"),
        ("[3, 100]", "[4294967296, 4294967296]"),
        ("[3, 100]", "[-3, 100]"),
        (r#""nested_blocksize": 256, "#, ""),
        (r#""nested_dtype": "float32""#, r#""nested_dtype": "float16""#),
        (r#""bfloat16""#, r#""int8""#),
        ("{", ""),
    ] {
        let bad = state.replace(from, to);
        assert_ne!(bad, state);
        let mut tensors = good.clone();
        tensors.insert(format!("{NAME}{}", suffix::QUANT_STATE), bad.clone().into_bytes());
        assert!(read(&tensors).is_err(), "{bad}");
    }
    let mut tensors = good;
    tensors.get_mut(&format!("{NAME}{}", suffix::QUANT_MAP)).unwrap()[0] ^= 1;
    assert!(matches!(read(&tensors), Err(Error::Unsupported { .. })));
}

#[test]
fn another_block_size_is_read() {
    let mut tensors = stored(&tensor(false));
    let state = QuantState { block: 128, source: SourceType::Float32, shape: vec![300], nested: None };
    tensors.insert(format!("{NAME}{}", suffix::QUANT_STATE), state.to_json().into_bytes());
    tensors.insert(format!("{NAME}{}", suffix::ABSMAX), le(&[1.0, 2.0, 4.0]));
    tensors.insert(NAME.to_owned(), vec![0xF0; 150]);
    let values = read(&tensors).unwrap().unwrap().dequantize();
    assert_eq!(values[126..130], [1.0, -1.0, 2.0, -2.0]);
    assert_eq!(values[298..], [4.0, -4.0]);
}

/// What Python's `json.dumps` writes.
#[test]
fn states_are_written_as_python_does() {
    for (offset, expected) in [
        (0.323_333_74_f32, "0.323333740234375"),
        (0.0, "0.0"),
        (1.0, "1.0"),
        (1e-4, "9.999999747378752e-05"),
        (0.000_123, "0.0001230000052601099"),
        (f32::MIN_POSITIVE, "1.1754943508222875e-38"),
        (f32::MAX, "3.4028234663852886e+38"),
        (1e16, "1.0000000272564224e+16"),
        (1e15, "999999986991104.0"),
        (f32::from_bits(1), "1.401298464324817e-45"),
    ] {
        let nested = Some(NestedState { block: 256, offset });
        let state = QuantState { block: 64, source: SourceType::Bfloat16, shape: vec![64, 192], nested };
        let expected = format!(
            r#"{{"quant_type": "nf4", "blocksize": 64, "dtype": "bfloat16", "shape": [64, 192], "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": {expected}}}"#
        );
        assert_eq!(state.to_json(), expected);
        assert!(expected.len() <= MAX_STATE_BYTES);
    }
    let plain = QuantState { block: 64, source: SourceType::Float32, shape: vec![5], nested: None };
    assert_eq!(plain.to_json(), r#"{"quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": [5]}"#);
}

#[test]
fn values_that_are_not_finite_are_refused() {
    let mut values = vec![1.0; 100];
    values[70] = f32::NAN;
    let result = QuantizedTensor::quantize(&values, &[100], SourceType::Float32, true);
    assert!(matches!(result, Err(Error::NotFinite { start: 64, end: 100 })));
}
