//! Two safetensors files, tensor by tensor. Holds one buffer of each, never a whole file.

use std::{collections::BTreeSet, path::Path};

use pipe_hf::{Checkpoint, Dtype, Error, element_bytes, widen};
use serde::Serialize;

/// What is read of a tensor at once, in elements.
const CHUNK: usize = 1 << 18;

/// How two files of tensors differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDiff {
    /// How many tensors are in either file.
    pub tensors: usize,
    /// Those that differ, by name.
    pub differ: Vec<TensorChange>,
}

/// How a tensor differs.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorChange {
    /// Its name.
    pub name: String,
    /// Its element type, then and now; `None` where it is missing.
    pub dtype: [Option<String>; 2],
    /// Its shape, then and now; `None` where it is missing.
    pub shape: [Option<Vec<usize>>; 2],
    /// How many elements differ; `None` if type or shape do.
    pub differ: Option<u64>,
    /// The largest difference of two elements; `None` if the elements are no floating-point numbers of up to 32 bits,
    /// or a difference is not a number.
    pub max_abs: Option<f64>,
    /// The length of the difference over the length of the recorded tensor, both as vectors; `None` as above.
    pub relative_l2: Option<f64>,
}

/// Compares a recorded file with one of now.
///
/// # Errors
/// If one of them is no sound safetensors file.
pub(super) fn compare(recorded: &Path, now: &Path) -> Result<TensorDiff, Error> {
    let (recorded, now) = (Checkpoint::open_file(recorded)?, Checkpoint::open_file(now)?);
    let names: BTreeSet<&str> = recorded.names().chain(now.names()).collect();
    let mut differ = Vec::new();
    for name in &names {
        differ.extend(compare_tensor(&recorded, &now, name)?);
    }
    Ok(TensorDiff { tensors: names.len(), differ })
}

fn compare_tensor(recorded: &Checkpoint, now: &Checkpoint, name: &str) -> Result<Option<TensorChange>, Error> {
    let infos = [recorded, now].map(|file| file.info(name).ok());
    let mut change = TensorChange {
        name: name.to_owned(),
        dtype: infos.map(|info| info.map(|info| format!("{:?}", info.dtype))),
        shape: infos.map(|info| info.map(|info| info.shape.clone())),
        differ: None,
        max_abs: None,
        relative_l2: None,
    };
    let (Some(one), Some(other)) = (infos[0], infos[1]) else { return Ok(Some(change)) };
    if (one.dtype, &one.shape) != (other.dtype, &other.shape) {
        return Ok(Some(change));
    }
    // Elements smaller than a byte are counted as bytes.
    let width = element_bytes(one.dtype).unwrap_or(1);
    let mut sums = Sums::default();
    let mut buffers = [vec![0; CHUNK * width], vec![0; CHUNK * width]];
    let mut offset = 0;
    while offset < one.length_bytes {
        let length = (one.length_bytes - offset).min((CHUNK * width) as u64) as usize;
        let [left, right] = &mut buffers;
        recorded.read_range(name, offset, &mut left[..length])?;
        now.read_range(name, offset, &mut right[..length])?;
        if left[..length] != right[..length] {
            sums.differences(one.dtype, width, &left[..length], &right[..length]);
        } else if sums.counts_numbers(one.dtype) {
            sums.add_length(one.dtype, width, &left[..length]);
        }
        offset += length as u64;
    }
    if sums.differ == 0 {
        return Ok(None);
    }
    change.differ = Some(sums.differ);
    if sums.counts_numbers(one.dtype) && !sums.not_a_number {
        change.max_abs = Some(sums.max_abs);
        change.relative_l2 =
            Some(sums.difference_squared.sqrt() / sums.recorded_squared.sqrt()).filter(|l2| l2.is_finite());
    }
    Ok(Some(change))
}

#[derive(Default)]
struct Sums {
    differ: u64,
    max_abs: f64,
    difference_squared: f64,
    recorded_squared: f64,
    not_a_number: bool,
}

impl Sums {
    fn counts_numbers(&self, dtype: Dtype) -> bool {
        matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
    }

    /// Counts the recorded elements of a piece in which nothing differs.
    fn add_length(&mut self, dtype: Dtype, width: usize, bytes: &[u8]) {
        self.recorded_squared += values(dtype, width, bytes).iter().map(|value| f64::from(*value).powi(2)).sum::<f64>();
    }

    fn differences(&mut self, dtype: Dtype, width: usize, recorded: &[u8], now: &[u8]) {
        let pairs = recorded.chunks_exact(width).zip(now.chunks_exact(width));
        self.differ += pairs.filter(|(one, other)| one != other).count() as u64;
        if !self.counts_numbers(dtype) {
            return;
        }
        for (one, other) in values(dtype, width, recorded).into_iter().zip(values(dtype, width, now)) {
            let (one, other) = (f64::from(one), f64::from(other));
            self.recorded_squared += one * one;
            // The same infinity differs by nothing, and a NaN that is the same by its bits was not counted.
            if one == other || (one.is_nan() && other.is_nan()) {
                continue;
            }
            let difference = (other - one).abs();
            self.not_a_number |= !difference.is_finite();
            self.max_abs = self.max_abs.max(difference);
            self.difference_squared += difference * difference;
        }
    }
}

fn values(dtype: Dtype, width: usize, bytes: &[u8]) -> Vec<f32> {
    let mut values = vec![0.0; bytes.len() / width];
    // Only called for the three types that it knows.
    let _ = widen(dtype, bytes, &mut values);
    values
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use pipe_hf::{SafetensorsWriter, TensorSpec};

    use super::*;

    type Tensor<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

    fn file(folder: &Path, name: &str, tensors: &[Tensor<'_>]) -> std::path::PathBuf {
        let path = folder.join(name);
        let specs = tensors.iter().map(|(name, dtype, shape, _)| TensorSpec {
            name: (*name).to_owned(),
            dtype: *dtype,
            shape: shape.to_vec(),
        });
        let writer = SafetensorsWriter::create(&path, specs.collect()).unwrap();
        for (name, _, _, bytes) in tensors {
            writer.write(name, bytes).unwrap();
        }
        writer.finish().unwrap();
        path
    }

    fn floats(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn every_difference_is_named_and_measured() {
        let temp = tempfile::tempdir().unwrap();
        let mut large = vec![1.0f32; CHUNK + 10];
        let recorded = file(
            temp.path(),
            "recorded",
            &[
                ("large", Dtype::F32, &[CHUNK + 10], floats(&large)),
                ("gone", Dtype::F32, &[1], floats(&[1.0])),
                ("reshaped", Dtype::F32, &[2, 1], floats(&[1.0, 2.0])),
                ("same", Dtype::F32, &[2], floats(&[f32::NAN, f32::INFINITY])),
                ("packed", Dtype::U8, &[3], vec![1, 2, 3]),
                ("nan", Dtype::F32, &[2], floats(&[1.0, 2.0])),
                ("half", Dtype::BF16, &[2], vec![0x80, 0x3f, 0x80, 0x3f]),
            ],
        );
        large[3] = 4.0;
        large[CHUNK + 5] = -3.0;
        let now = file(
            temp.path(),
            "now",
            &[
                ("large", Dtype::F32, &[CHUNK + 10], floats(&large)),
                ("new", Dtype::F32, &[1], floats(&[1.0])),
                ("reshaped", Dtype::F32, &[1, 2], floats(&[1.0, 2.0])),
                ("same", Dtype::F32, &[2], floats(&[f32::NAN, f32::INFINITY])),
                ("packed", Dtype::U8, &[3], vec![1, 9, 9]),
                ("nan", Dtype::F32, &[2], floats(&[f32::NAN, 2.0])),
                ("half", Dtype::BF16, &[2], vec![0x80, 0x3f, 0x00, 0x40]),
            ],
        );
        let diff = compare(&recorded, &now).unwrap();
        let of = |name: &str| diff.differ.iter().find(|change| change.name == name).cloned();
        assert_eq!(diff.tensors, 8);
        assert_eq!(of("same"), None);

        let change = of("large").unwrap();
        assert_eq!((change.differ, change.max_abs), (Some(2), Some(4.0)));
        let expected = 5.0 / ((CHUNK + 10) as f64).sqrt();
        assert!((change.relative_l2.unwrap() - expected).abs() < 1e-12, "{change:?}");

        let half = of("half").unwrap();
        assert_eq!((half.differ, half.max_abs), (Some(1), Some(1.0)));
        assert!((half.relative_l2.unwrap() - 0.5f64.sqrt()).abs() < 1e-12);
        assert_eq!(of("packed").map(|change| (change.differ, change.max_abs)), Some((Some(2), None)));
        assert_eq!(of("nan").map(|change| (change.differ, change.max_abs)), Some((Some(1), None)));
        assert_eq!(of("gone").unwrap().shape, [Some(vec![1]), None]);
        assert_eq!(of("new").unwrap().dtype, [None, Some("F32".to_owned())]);
        assert_eq!(of("reshaped").unwrap().shape, [Some(vec![2, 1]), Some(vec![1, 2])]);
        assert_eq!(of("reshaped").unwrap().differ, None);
    }

    #[test]
    fn a_file_that_is_no_safetensors_is_an_error() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("x");
        std::fs::write(&path, [255; 100]).unwrap();
        assert!(compare(&path, &path).is_err());
    }
}
