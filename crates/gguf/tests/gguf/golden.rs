//! What the Python package wrote is written here to the same bytes, and read to the same values.

use std::path::{Path, PathBuf};

use pipe_gguf::{GgufReader, GgufTensor, GgufWriter, TensorType, Value};

pub(crate) fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

#[test]
fn a_file_of_the_python_package_comes_out_the_same() {
    let path = fixture("small.gguf");
    let file = GgufReader::open(&path).unwrap();
    let mut values = vec![0.0; 6 * 64];
    file.read_f32_range("f32.weight", 0, &mut values).unwrap();
    // In the order of their data, as the package laid them out.
    let mut names: Vec<&str> = file.names().collect();
    names.sort_by_key(|name| file.entry(name).unwrap().start);
    let declared = |name: &&str| {
        let entry = file.entry(name).unwrap();
        GgufTensor { name: (*name).to_owned(), tensor_type: entry.tensor_type, shape: entry.shape.clone() }
    };
    let tensors: Vec<GgufTensor> = names.iter().map(declared).collect();
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("copy.gguf");
    let writer = GgufWriter::create(&copy, file.metadata(), &tensors).unwrap();
    for tensor in tensors.iter().rev() {
        let elements: usize = tensor.shape.iter().product();
        let bytes = tensor.tensor_type.encode(&values[..elements]).unwrap();
        let (first, second) = bytes.split_at(bytes.len() / 3);
        writer.write_range(&tensor.name, first.len() as u64, second).unwrap();
        writer.write_range(&tensor.name, 0, first).unwrap();
    }
    writer.finish().unwrap();
    let (expected, found) = (std::fs::read(&path).unwrap(), std::fs::read(&copy).unwrap());
    assert_eq!(found.len(), expected.len());
    let place = expected.iter().zip(&found).position(|(expected, found)| expected != found);
    assert_eq!(place, None, "the first byte that differs");
}

#[test]
fn metadata_have_their_types() {
    let file = GgufReader::open(&fixture("small.gguf")).unwrap();
    let get = |key: &str| file.metadata().get(key).unwrap().clone();
    assert_eq!(get("general.architecture").as_str(), Some("qwen3"));
    assert_eq!(get("test.u8"), Value::U8(7));
    assert_eq!(get("test.i64"), Value::I64(-5));
    assert_eq!(get("test.f64"), Value::F64(0.5));
    assert_eq!(get("tokenizer.ggml.tokens").as_strings().unwrap(), ["a", "Ġb", "<|x|>"]);
    assert_eq!(get("tokenizer.ggml.add_bos_token").as_bool(), Some(false));
    assert_eq!(get("qwen3.block_count").as_u64(), Some(2));
    assert_eq!(file.entry("norm.weight").unwrap().shape, [5]);
    assert_eq!(file.entry("q4_0.weight").unwrap().shape, [6, 64]);
}

#[test]
fn every_type_stands_for_the_values_of_the_python_package() {
    let bytes = std::fs::read(fixture("decoded.bin")).unwrap();
    let mut rest = bytes.as_slice();
    let mut types = Vec::new();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
    while !rest.is_empty() {
        let tensor_type = TensorType::from_id(word(&rest[..4])).unwrap();
        let length = word(&rest[4..8]) as usize;
        let raw = &rest[8..8 + length];
        let expected = rest[8 + length..][..1024].chunks(4).map(|raw| f32::from_bits(word(raw)));
        let mut values = vec![0.0; 256];
        tensor_type.decode(raw, &mut values).unwrap();
        for (index, (value, expected)) in values.iter().zip(expected).enumerate() {
            assert_eq!(*value, expected, "{} {index}", tensor_type.name());
        }
        types.push(tensor_type.name());
        rest = &rest[8 + length + 1024..];
    }
    assert_eq!(types, ["F32", "F16", "BF16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q4_K", "Q6_K"]);
}

#[test]
fn what_is_not_whole_blocks_is_refused() {
    assert_eq!(TensorType::Q8_0.encode(&[0.0; 33]), None);
    assert_eq!(TensorType::Q4_1.encode(&[0.0; 32]), None, "read only");
    assert_eq!(TensorType::Q4_0.decode(&[0; 17], &mut [0.0; 32]), None);
    let tensor = GgufTensor { name: "a".to_owned(), tensor_type: TensorType::Q8_0, shape: vec![32, 8] };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.gguf");
    let error = GgufWriter::create(&path, &pipe_gguf::Metadata::new(), &[tensor]).unwrap_err().to_string();
    assert!(error.contains("has rows of 8, which are no whole blocks of Q8_0"), "{error}");
}

#[test]
fn a_tensor_that_is_not_wholly_written_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let tensor = GgufTensor { name: "a".to_owned(), tensor_type: TensorType::F32, shape: vec![4] };
    let create = || {
        GgufWriter::create(&folder.path().join("a.gguf"), &pipe_gguf::Metadata::new(), std::slice::from_ref(&tensor))
            .unwrap()
    };
    let writer = create();
    writer.write_range("a", 0, &[0; 12]).unwrap();
    assert!(writer.write_range("a", 8, &[0; 12]).is_err() && writer.write_range("b", 0, &[]).is_err());
    assert!(writer.finish().unwrap_err().to_string().contains("16 bytes, 12 were written"));
    let writer = create();
    writer.write_range("a", 0, &[0; 16]).unwrap();
    writer.finish().unwrap();
}
