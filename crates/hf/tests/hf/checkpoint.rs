//! Reading: single files, shards, and files that lie about their sizes.

use std::{fs, path::Path};

use half::{bf16, f16};
use pipe_hf::{Checkpoint, Dtype, ModelConfig, TensorSpec, write_safetensors};
use proptest::prelude::*;

use crate::{chain, fixture};

fn le(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn write(path: &Path, tensors: &[(&str, Dtype, &[usize], Vec<u8>)]) {
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, dtype, shape, bytes)| (TensorSpec::new(*name, *dtype, shape.to_vec()), bytes.as_slice()))
        .collect();
    write_safetensors(path, &tensors).unwrap();
}

#[test]
fn elements_are_widened_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let values = [1.0_f32, -0.0, 0.333, 65_504.0, 1e-7, f32::INFINITY];
    let b: Vec<u8> = values.iter().flat_map(|value| bf16::from_f32(*value).to_le_bytes()).collect();
    let h: Vec<u8> = values.iter().flat_map(|value| f16::from_f32(*value).to_le_bytes()).collect();
    write(
        &dir.path().join("model.safetensors"),
        &[
            ("f", Dtype::F32, &[2, 3], le(&values)),
            ("b", Dtype::BF16, &[6], b),
            ("h", Dtype::F16, &[6, 1], h),
            ("u", Dtype::U8, &[2], vec![7, 8]),
        ],
    );
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["b", "f", "h", "u"]);
    assert_eq!(checkpoint.info("f").unwrap().shape, [2, 3]);
    assert_eq!(checkpoint.read_f32("f").unwrap(), values);
    let bf16_values: Vec<f32> = values.iter().map(|value| bf16::from_f32(*value).to_f32()).collect();
    assert_eq!(checkpoint.read_f32("b").unwrap(), bf16_values);
    let f16_values: Vec<f32> = values.iter().map(|value| f16::from_f32(*value).to_f32()).collect();
    assert_eq!(checkpoint.read_f32("h").unwrap(), f16_values);
    let mut part = [0.0; 2];
    checkpoint.read_f32_range("b", 2, &mut part).unwrap();
    assert_eq!(part, bf16_values[2..4]);
    let mut part = [0; 1];
    checkpoint.read_range("u", 1, &mut part).unwrap();
    assert_eq!(part, [8]);

    assert!(chain(&checkpoint.read_f32("u").unwrap_err()).contains("tensor `u` holds U8 elements; BF16, F16 and F32"));
    assert!(chain(&checkpoint.read("x").unwrap_err()).contains("has no tensor `x`"));
    let message = chain(&checkpoint.read_range("u", 2, &mut part).unwrap_err());
    assert!(message.contains("tensor `u` has 2 bytes; bytes 2..3 are out of its bounds"), "{message}");
    assert!(checkpoint.read_f32_range("b", usize::MAX, &mut [0.0]).is_err());
}

#[test]
fn shards_are_one_checkpoint() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    write(&path("model-1.safetensors"), &[("a", Dtype::F32, &[1], le(&[1.0])), ("x", Dtype::F32, &[1], le(&[9.0]))]);
    write(&path("model-2.safetensors"), &[("b", Dtype::F32, &[1], le(&[2.0]))]);
    let index = |text: &str| fs::write(path("model.safetensors.index.json"), text).unwrap();
    index(r#"{"metadata": {}, "weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}"#);
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(checkpoint.read_f32("a").unwrap(), [1.0]);
    assert_eq!(checkpoint.read_f32("b").unwrap(), [2.0]);

    for (text, expected) in [
        (r#"{"weight_map": {"c": "model-2.safetensors"}}"#, "lists tensor `c` in model-2.safetensors, which does not"),
        (r#"{"weight_map": {"a": "../model-1.safetensors"}}"#, "`a` must name a file beside the index"),
        (r#"{"weight_map": {"a": "/etc/passwd"}}"#, "`a` must name a file beside the index"),
        (r#"{"weight_map": {"a": ".."}}"#, "`a` must name a file beside the index"),
        (r#"{"weight_map": {"a": 1}}"#, "`a` must name a file beside the index"),
        (r#"{"weight_map": {"a": "model-3.safetensors"}}"#, "cannot read"),
        ("{}", "has no object `weight_map`"),
    ] {
        index(text);
        let message = chain(&Checkpoint::open(dir.path()).unwrap_err());
        assert!(message.contains(expected), "{text}: {message}");
    }
}

#[test]
fn a_folder_without_weights_says_what_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let message = |dir: &Path| chain(&Checkpoint::open(dir).unwrap_err());
    assert!(message(dir.path()).contains("has no model.safetensors and no model.safetensors.index.json"));
    fs::write(dir.path().join("pytorch_model.bin"), "").unwrap();
    assert!(message(dir.path()).contains("convert it to safetensors"));
    fs::write(dir.path().join("adapter_model.safetensors"), "").unwrap();
    assert!(message(dir.path()).contains("it is a PEFT adapter"));
}

/// A file with this header text and so many bytes of data.
fn file(header: &str, data_bytes: usize) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    bytes.resize(bytes.len() + data_bytes, 0);
    bytes
}

#[test]
fn headers_that_lie_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let good = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    fs::write(&path, file(good, 8)).unwrap();
    Checkpoint::open_file(&path).unwrap();
    for (bytes, expected) in [
        (vec![], "it has only 0 bytes"),
        (vec![1; 7], "it has only 7 bytes"),
        (u64::MAX.to_le_bytes().to_vec(), "claims 18446744073709551615 bytes of 8"),
        (file(good, 8)[..40].to_vec(), "its header claims 54 bytes of 40"),
        (file(good, 7), "its tensors need 8 bytes, it has 7; it is cut short"),
        (file(good, 9), "its tensors need 8 bytes, it has 9"),
        (file("{", 0), "EOF while parsing"),
        (file("\u{1}", 0), "not a valid safetensors file"),
        (file(r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, 12), "not a valid safetensors file"),
        (file(r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, 8), "not a valid safetensors file"),
        (file(r#"{"a":{"dtype":"F99","shape":[2],"data_offsets":[0,8]}}"#, 8), "unknown variant `F99`"),
        (file(r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8), "not a valid safetensors file"),
        (
            file(r#"{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,0]}}"#, 0),
            "not a valid safetensors file",
        ),
        (
            file(
                r#"{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}"#,
                6,
            ),
            "not a valid safetensors file",
        ),
    ] {
        fs::write(&path, &bytes).unwrap();
        let message = chain(&Checkpoint::open_file(&path).unwrap_err());
        assert!(message.contains(expected), "{expected}: {message}");
    }
    let message = chain(&Checkpoint::open_file(dir.path()).unwrap_err());
    assert!(message.contains("not a regular file"), "{message}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    /// Whatever bytes are flipped: an error or a checkpoint whose tensors can be read, no panic and no huge allocation.
    #[test]
    fn damaged_headers_never_panic(flips in prop::collection::vec((0_usize..120, any::<u8>()), 1..6)) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model.safetensors");
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"U8","shape":[3,1],"data_offsets":[8,11]}}"#;
        let mut bytes = file(header, 11);
        for (place, value) in flips {
            let length = bytes.len();
            bytes[place % length] = value;
        }
        fs::write(&path, bytes).unwrap();
        if let Ok(checkpoint) = Checkpoint::open_file(&path) {
            for name in checkpoint.names() {
                prop_assert!(checkpoint.read(name).is_ok());
            }
        }
    }
}

/// The parameters of a tiny model, each filled with the number of its place.
fn model(config: &ModelConfig) -> Vec<(TensorSpec, Vec<u8>)> {
    let parameters = config.parameters().into_iter().enumerate();
    parameters
        .map(|(i, one)| {
            let values = vec![i as f32; one.shape.iter().product()];
            (TensorSpec::new(one.name, Dtype::F32, one.shape), le(&values))
        })
        .collect()
}

#[test]
fn a_checkpoint_is_held_against_its_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let config = ModelConfig::open(&fixture("v5")).unwrap();
    let check = |tensors: &[(TensorSpec, Vec<u8>)]| {
        let borrowed: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
        write_safetensors(&dir.path().join("model.safetensors"), &borrowed).unwrap();
        Checkpoint::open(dir.path()).unwrap().check(&config).map_err(|error| chain(&error))
    };
    let good = model(&config);
    check(&good).unwrap();

    let mut missing = good.clone();
    let name = missing.remove(5).0.name;
    assert!(check(&missing).unwrap_err().contains(&format!("has no tensor `{name}`")));

    let mut reshaped = good.clone();
    reshaped[0].0.shape = vec![256, 128];
    let message = check(&reshaped).unwrap_err();
    assert!(message.contains("`model.embed_tokens.weight` has the shape [256, 128], config.json says [512, 64]"));

    let mut with_copy = good.clone();
    let (embedding, bytes) = &good[0];
    with_copy.push((TensorSpec { name: "lm_head.weight".to_owned(), ..embedding.clone() }, bytes.clone()));
    check(&with_copy).unwrap();
    // The last byte decides: all of the tensor is compared.
    *with_copy.last_mut().unwrap().1.last_mut().unwrap() ^= 1;
    assert!(check(&with_copy).unwrap_err().contains("lm_head.weight differs from model.embed_tokens.weight"));
}
