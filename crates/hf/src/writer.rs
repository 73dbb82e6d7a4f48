//! Writing one safetensors file whose tensors need not be in memory together.
//!
//! Types, shapes and names are declared first, which fixes the layout; the data then comes in any order, from any
//! thread. The layout is the safetensors library's own (types by falling alignment, then names), so that the bytes do
//! not depend on the order of the calls.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use safetensors::tensor::Metadata;

use crate::{Dtype, Error};

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// Element type.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
}

impl TensorSpec {
    /// A tensor of a name, type and shape.
    pub fn new(name: impl Into<String>, dtype: Dtype, shape: impl Into<Vec<usize>>) -> Self {
        Self { name: name.into(), dtype, shape: shape.into() }
    }

    fn length_bytes(&self, path: &Path) -> Result<usize, Error> {
        let bits = self.shape.iter().try_fold(self.dtype.bitsize(), |bits, side| bits.checked_mul(*side));
        match bits {
            Some(bits) if bits.is_multiple_of(8) => Ok(bits / 8),
            _ => Err(layout(path, &self.name, "its size is too large")),
        }
    }
}

/// A file that is being written. Shared by reference between threads.
#[derive(Debug)]
pub struct SafetensorsWriter {
    path: PathBuf,
    file: File,
    declared: Vec<TensorSpec>,
    places: BTreeMap<String, Place>,
    /// The room for the header, without the eight bytes of its length.
    header_bytes: usize,
    /// Where the late tensors start, from the start of the data.
    late_start: usize,
    late: BTreeMap<String, usize>,
}

#[derive(Debug)]
struct Place {
    start: u64,
    length: u64,
    written: AtomicU64,
}

impl SafetensorsWriter {
    /// Creates the file for `tensors`.
    ///
    /// # Errors
    /// If a name stands twice, a size overflows, or the file cannot be written.
    pub fn create(path: &Path, tensors: Vec<TensorSpec>) -> Result<Self, Error> {
        Self::create_with_late(path, tensors, Vec::new())
    }

    /// The same, with byte tensors at the end whose size is known only when the others have been written: `late` holds
    /// their names and the most bytes that each can take. The header is padded for them with spaces, as the format
    /// allows.
    ///
    /// # Errors
    /// If a name stands twice, a size overflows, or the file cannot be written.
    pub fn create_with_late(
        path: &Path,
        mut tensors: Vec<TensorSpec>,
        mut late: Vec<(String, usize)>,
    ) -> Result<Self, Error> {
        tensors.sort_by(|one, other| other.dtype.cmp(&one.dtype).then_with(|| one.name.cmp(&other.name)));
        late.sort();
        let mut all = tensors.clone();
        all.extend(late.iter().map(|(name, most)| TensorSpec::new(name, Dtype::U8, [*most])));
        let mut names = BTreeSet::new();
        if let Some(twice) = all.iter().find(|tensor| !names.insert(&tensor.name)) {
            return Err(layout(path, &twice.name, "is declared twice"));
        }
        let header_bytes = header(path, &all)?.len();

        let mut places = BTreeMap::new();
        let mut end = 0_usize;
        for tensor in &tensors {
            let length = tensor.length_bytes(path)?;
            let place =
                Place { start: (8 + header_bytes + end) as u64, length: length as u64, written: AtomicU64::new(0) };
            places.insert(tensor.name.clone(), place);
            end = end.checked_add(length).ok_or_else(|| layout(path, &tensor.name, "the file would be too large"))?;
        }
        let file = File::create(path).map_err(Error::write(path))?;
        file.set_len((8 + header_bytes + end) as u64).map_err(Error::write(path))?;
        Ok(Self {
            path: path.to_owned(),
            file,
            declared: tensors,
            places,
            header_bytes,
            late_start: end,
            late: late.into_iter().collect(),
        })
    }

    /// Writes a whole tensor, little-endian.
    ///
    /// # Errors
    /// If it was not declared, has another size, or cannot be written.
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Error> {
        let place = self.place(name)?;
        if bytes.len() as u64 != place.length {
            return Err(self.out_of_range(name, place, 0, bytes.len()));
        }
        self.write_range(name, 0, bytes)
    }

    /// Writes `bytes` from byte `offset` of a tensor on. Each byte must be written once.
    ///
    /// # Errors
    /// If the tensor was not declared, the range is not in it, or it cannot be written.
    pub fn write_range(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let place = self.place(name)?;
        if offset.saturating_add(bytes.len() as u64) > place.length {
            return Err(self.out_of_range(name, place, offset, bytes.len()));
        }
        self.file.write_all_at(bytes, place.start + offset).map_err(Error::write(&self.path))?;
        place.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Writes the header. Every declared byte must have been written. Making the file durable is left to the caller.
    ///
    /// # Errors
    /// If a tensor is incomplete, or the file cannot be written.
    pub fn finish(self) -> Result<(), Error> {
        self.finish_with_late(&BTreeMap::new())
    }

    /// Writes the late tensors, all that were declared, and the header.
    ///
    /// # Errors
    /// If a tensor is incomplete, missing or larger than declared, or the file cannot be written.
    pub fn finish_with_late(mut self, late: &BTreeMap<String, Vec<u8>>) -> Result<(), Error> {
        for (name, place) in &self.places {
            self.complete(name, place.length, place.written.load(Ordering::Relaxed))?;
        }
        let mut tensors = std::mem::take(&mut self.declared);
        let mut tail = Vec::new();
        for (name, most) in &self.late {
            let bytes = late.get(name).map(Vec::as_slice).unwrap_or_default();
            if bytes.is_empty() || bytes.len() > *most {
                self.complete(name, *most as u64, bytes.len() as u64)?;
            }
            tensors.push(TensorSpec::new(name, Dtype::U8, [bytes.len()]));
            tail.extend_from_slice(bytes);
        }
        let tail_start = (8 + self.header_bytes + self.late_start) as u64;
        self.file.write_all_at(&tail, tail_start).map_err(Error::write(&self.path))?;

        // No offset grew, so the header is no longer than the room that was left for it.
        let mut header = header(&self.path, &tensors)?;
        header.resize(self.header_bytes, b' ');
        let mut prefix = (self.header_bytes as u64).to_le_bytes().to_vec();
        prefix.append(&mut header);
        self.file.write_all_at(&prefix, 0).map_err(Error::write(&self.path))
    }

    fn place(&self, name: &str) -> Result<&Place, Error> {
        self.places.get(name).ok_or_else(|| layout(&self.path, name, "was not declared"))
    }

    fn out_of_range(&self, name: &str, place: &Place, offset: u64, length: usize) -> Error {
        Error::Range {
            path: self.path.clone(),
            name: name.to_owned(),
            start: offset,
            end: offset.saturating_add(length as u64),
            length: place.length,
        }
    }

    fn complete(&self, name: &str, expected: u64, written: u64) -> Result<(), Error> {
        if expected == written {
            return Ok(());
        }
        Err(Error::Incomplete { path: self.path.clone(), name: name.to_owned(), expected, written })
    }
}

/// Writes tensors that are in memory as one file.
///
/// # Errors
/// If a name stands twice, a size is wrong, or the file cannot be written.
pub fn write_safetensors(path: &Path, tensors: &[(TensorSpec, &[u8])]) -> Result<(), Error> {
    let writer = SafetensorsWriter::create(path, tensors.iter().map(|(spec, _)| spec.clone()).collect())?;
    for (spec, bytes) in tensors {
        writer.write(&spec.name, bytes)?;
    }
    writer.finish()
}

/// The header of tensors that lie one behind the other, padded to eight bytes.
fn header(path: &Path, tensors: &[TensorSpec]) -> Result<Vec<u8>, Error> {
    let wrong = |problem: String| Error::Header { path: path.to_owned(), problem };
    let mut infos = Vec::with_capacity(tensors.len());
    let mut end = 0_usize;
    for tensor in tensors {
        let start = end;
        end = start
            .checked_add(tensor.length_bytes(path)?)
            .ok_or_else(|| layout(path, &tensor.name, "the file would be too large"))?;
        let info = safetensors::tensor::TensorInfo {
            dtype: tensor.dtype,
            shape: tensor.shape.clone(),
            data_offsets: (start, end),
        };
        infos.push((tensor.name.clone(), info));
    }
    // transformers refuses a file that does not say which framework's conventions it follows.
    let format = [("format".to_owned(), "pt".to_owned())].into();
    let metadata = Metadata::new(Some(format), infos).map_err(|error| wrong(error.to_string()))?;
    let mut header = serde_json::to_vec(&metadata).map_err(|error| wrong(error.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    Ok(header)
}

fn layout(path: &Path, name: &str, problem: &'static str) -> Error {
    Error::Layout { path: path.to_owned(), name: name.to_owned(), problem }
}
