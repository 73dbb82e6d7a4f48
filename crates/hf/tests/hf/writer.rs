//! Writing: the same bytes as the safetensors library, in any order, with room for what comes late.

use std::{collections::BTreeMap, fs};

use pipe_hf::{Checkpoint, Dtype, SafetensorsWriter, TensorSpec, write_safetensors};
use safetensors::tensor::TensorView;

use crate::chain;

fn specs() -> Vec<(TensorSpec, Vec<u8>)> {
    vec![
        (TensorSpec::new("b.weight", Dtype::BF16, [2, 3]), (0..12).collect()),
        (TensorSpec::new("a.weight", Dtype::F32, [2]), (20..28).collect()),
        (TensorSpec::new("c.codes", Dtype::U8, [5, 1]), (30..35).collect()),
        (TensorSpec::new("a.codes", Dtype::U8, [0]), Vec::new()),
        (TensorSpec::new("名.weight", Dtype::F32, []), (40..44).collect()),
    ]
}

#[test]
fn the_bytes_are_those_of_the_safetensors_library() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let tensors = specs();
    let borrowed: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    write_safetensors(&path, &borrowed).unwrap();

    let views = tensors
        .iter()
        .map(|(spec, bytes)| (spec.name.clone(), TensorView::new(spec.dtype, spec.shape.clone(), bytes).unwrap()));
    let format = Some([("format".to_owned(), "pt".to_owned())].into());
    assert_eq!(fs::read(&path).unwrap(), safetensors::serialize(views, format).unwrap());
}

#[test]
fn pieces_may_come_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, pieces) = (dir.path().join("whole"), dir.path().join("pieces"));
    let tensors = specs();
    let borrowed: Vec<_> = tensors.iter().map(|(spec, bytes)| (spec.clone(), bytes.as_slice())).collect();
    write_safetensors(&whole, &borrowed).unwrap();

    let declared = tensors.iter().rev().map(|(spec, _)| spec.clone()).collect();
    let writer = SafetensorsWriter::create(&pieces, declared).unwrap();
    for (spec, bytes) in &tensors {
        for (i, byte) in bytes.iter().enumerate().rev() {
            writer.write_range(&spec.name, i as u64, &[*byte]).unwrap();
        }
    }
    writer.finish().unwrap();
    assert_eq!(fs::read(&whole).unwrap(), fs::read(&pieces).unwrap());
}

#[test]
fn late_tensors_take_the_size_they_have() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    for lengths in [[1, 1], [3, 99], [100, 1000], [100, 7]] {
        let late = vec![("z".to_owned(), 1000), ("y".to_owned(), 100)];
        let declared = vec![TensorSpec::new("m", Dtype::F32, [1])];
        let writer = SafetensorsWriter::create_with_late(&path, declared, late).unwrap();
        writer.write("m", &[1, 2, 3, 4]).unwrap();
        let late = BTreeMap::from([("y".to_owned(), vec![b'y'; lengths[0]]), ("z".to_owned(), vec![b'z'; lengths[1]])]);
        writer.finish_with_late(&late).unwrap();

        let bytes = fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("m").unwrap().data(), [1, 2, 3, 4]);
        assert_eq!(file.tensor("y").unwrap().data(), &late["y"]);
        assert_eq!(file.tensor("z").unwrap().data(), &late["z"]);
        let checkpoint = Checkpoint::open(dir.path()).unwrap();
        assert_eq!(checkpoint.read("z").unwrap(), late["z"]);
    }
}

/// However the late tensors are listed, the room for the header is that of the order in the file.
#[test]
fn late_tensors_may_be_listed_in_any_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let mut late: Vec<_> = (0..20).map(|i| (format!("z{i:02}"), 1)).collect();
    late.push(("a".to_owned(), 100_000));
    let writer = SafetensorsWriter::create_with_late(&path, vec![], late.clone()).unwrap();
    writer.finish_with_late(&late.iter().map(|(name, most)| (name.clone(), vec![7; *most])).collect()).unwrap();
    let checkpoint = Checkpoint::open(dir.path()).unwrap();
    assert_eq!(checkpoint.names().count(), 21);
    assert_eq!(checkpoint.read("z19").unwrap(), [7]);
}

#[test]
fn mistakes_of_the_caller_are_errors() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let spec = |name: &str| TensorSpec::new(name, Dtype::U8, [4]);
    let create = || SafetensorsWriter::create(&path, vec![spec("a"), spec("b")]).unwrap();

    let message = |result: Result<(), pipe_hf::Error>| chain(&result.unwrap_err());
    assert!(message(create().write("c", &[0])).contains("`c`: was not declared"));
    assert!(message(create().write("a", &[0; 3])).contains("`a` has 4 bytes; bytes 0..3"));
    assert!(message(create().write_range("a", 3, &[0; 2])).contains("bytes 3..5 are out of its bounds"));
    assert!(message(create().write_range("a", u64::MAX, &[0; 2])).contains("out of its bounds"));

    let writer = create();
    writer.write("a", &[0; 4]).unwrap();
    writer.write_range("b", 0, &[0; 3]).unwrap();
    assert!(message(writer.finish()).contains("`b` was declared with 4 bytes, 3 were written"));

    let twice = SafetensorsWriter::create(&path, vec![spec("a"), spec("a")]);
    assert!(message(twice.map(drop)).contains("`a`: is declared twice"));
    let late = SafetensorsWriter::create_with_late(&path, vec![spec("a")], vec![("a".to_owned(), 9)]);
    assert!(message(late.map(drop)).contains("`a`: is declared twice"));
    let huge = SafetensorsWriter::create(&path, vec![TensorSpec::new("a", Dtype::F32, [usize::MAX, 2])]);
    assert!(message(huge.map(drop)).contains("`a`: its size is too large"));

    let late = || SafetensorsWriter::create_with_late(&path, vec![], vec![("z".to_owned(), 2)]).unwrap();
    assert!(message(late().finish()).contains("`z` was declared with 2 bytes, 0 were written"));
    let too_long = BTreeMap::from([("z".to_owned(), vec![0; 3])]);
    assert!(message(late().finish_with_late(&too_long)).contains("`z` was declared with 2 bytes, 3 were written"));
}
