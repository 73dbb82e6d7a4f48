//! Writing a GGUF file whose tensors need not be in memory together.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use crate::{ALIGNMENT, Array, Error, Metadata, TensorType, Value};

/// A tensor that will be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GgufTensor {
    /// Its name.
    pub name: String,
    /// How it is stored.
    pub tensor_type: TensorType,
    /// Shape, row-major as in a Hugging Face file; GGUF writes it the other way round.
    pub shape: Vec<usize>,
}

/// A file that is being written. Shared by reference between threads.
#[derive(Debug)]
pub struct GgufWriter {
    path: PathBuf,
    file: File,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
    start: u64,
    length: u64,
    written: AtomicU64,
}

impl GgufWriter {
    /// Creates the file with its metadata and the table of its tensors, whose data lies in their order.
    ///
    /// # Errors
    /// If a name stands twice, a row is no whole number of blocks, or the file cannot be written.
    pub fn create(path: &Path, metadata: &Metadata, tensors: &[GgufTensor]) -> Result<Self, Error> {
        let wrong = |name: &str, problem: &str| Error::Tensor {
            path: path.to_owned(),
            name: name.to_owned(),
            problem: problem.to_owned(),
        };
        let mut header = b"GGUF".to_vec();
        header.extend(3_u32.to_le_bytes());
        header.extend((tensors.len() as u64).to_le_bytes());
        header.extend((metadata.len() as u64).to_le_bytes());
        for (key, value) in metadata.iter() {
            put_text(&mut header, key);
            header.extend(type_id(value).to_le_bytes());
            put_value(&mut header, value);
        }
        let mut end = 0_u64;
        let mut places = BTreeMap::new();
        for tensor in tensors {
            let columns = tensor.shape.last().copied().unwrap_or(1);
            if !columns.is_multiple_of(tensor.tensor_type.block()) {
                let problem =
                    format!("has rows of {columns}, which are no whole blocks of {}", tensor.tensor_type.name());
                return Err(wrong(&tensor.name, &problem));
            }
            let elements = tensor.shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
            let length = elements.and_then(|elements| tensor.tensor_type.bytes(elements));
            let length = length.ok_or_else(|| wrong(&tensor.name, "is too large"))? as u64;
            put_text(&mut header, &tensor.name);
            header.extend((tensor.shape.len() as u32).to_le_bytes());
            for side in tensor.shape.iter().rev() {
                header.extend((*side as u64).to_le_bytes());
            }
            header.extend(tensor.tensor_type.id().to_le_bytes());
            header.extend(end.to_le_bytes());
            let place = Place { start: end, length, written: AtomicU64::new(0) };
            if places.insert(tensor.name.clone(), place).is_some() {
                return Err(wrong(&tensor.name, "is declared twice"));
            }
            let padded = length.checked_next_multiple_of(ALIGNMENT).and_then(|length| end.checked_add(length));
            end = padded.ok_or_else(|| wrong(&tensor.name, "would make the file too large"))?;
        }
        header.resize(header.len().next_multiple_of(ALIGNMENT as usize), 0);
        let data = header.len() as u64;
        for place in places.values_mut() {
            place.start += data;
        }
        let file = File::create(path).map_err(Error::write(path))?;
        file.set_len(data + end).map_err(Error::write(path))?;
        file.write_all_at(&header, 0).map_err(Error::write(path))?;
        Ok(Self { path: path.to_owned(), file, places })
    }

    /// Writes `bytes` from byte `offset` of a tensor on. Each byte must be written once.
    ///
    /// # Errors
    /// If the tensor was not declared, the range is not in it, or it cannot be written.
    pub fn write_range(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let place = self.places.get(name).ok_or_else(|| self.wrong(name, "was not declared".to_owned()))?;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > place.length {
            let problem = format!("has {} bytes; bytes {offset}..{end} are out of its bounds", place.length);
            return Err(self.wrong(name, problem));
        }
        self.file.write_all_at(bytes, place.start + offset).map_err(Error::write(&self.path))?;
        place.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        Ok(())
    }

    /// Checks that every declared byte has been written. Making the file durable is left to the caller.
    ///
    /// # Errors
    /// If a tensor is incomplete.
    pub fn finish(self) -> Result<(), Error> {
        for (name, place) in &self.places {
            let written = place.written.load(Ordering::Relaxed);
            if written != place.length {
                let problem = format!("was declared with {} bytes, {written} were written", place.length);
                return Err(self.wrong(name, problem));
            }
        }
        Ok(())
    }

    fn wrong(&self, name: &str, problem: String) -> Error {
        Error::Tensor { path: self.path.clone(), name: name.to_owned(), problem }
    }
}

fn type_id(value: &Value) -> u32 {
    match value {
        Value::U8(_) => 0,
        Value::I8(_) => 1,
        Value::U16(_) => 2,
        Value::I16(_) => 3,
        Value::U32(_) => 4,
        Value::I32(_) => 5,
        Value::F32(_) => 6,
        Value::Bool(_) => 7,
        Value::String(_) => 8,
        Value::Array(_) => 9,
        Value::U64(_) => 10,
        Value::I64(_) => 11,
        Value::F64(_) => 12,
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u64).to_le_bytes());
    out.extend(text.as_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &Value) {
    match value {
        Value::U8(value) => out.push(*value),
        Value::I8(value) => out.extend(value.to_le_bytes()),
        Value::U16(value) => out.extend(value.to_le_bytes()),
        Value::I16(value) => out.extend(value.to_le_bytes()),
        Value::U32(value) => out.extend(value.to_le_bytes()),
        Value::I32(value) => out.extend(value.to_le_bytes()),
        Value::F32(value) => out.extend(value.to_le_bytes()),
        Value::Bool(value) => out.push(u8::from(*value)),
        Value::String(text) => put_text(out, text),
        Value::Array(array) => put_array(out, array),
        Value::U64(value) => out.extend(value.to_le_bytes()),
        Value::I64(value) => out.extend(value.to_le_bytes()),
        Value::F64(value) => out.extend(value.to_le_bytes()),
    }
}

fn put_array(out: &mut Vec<u8>, array: &Array) {
    let mut begin = |id: u32, length: usize| {
        out.extend(id.to_le_bytes());
        out.extend((length as u64).to_le_bytes());
    };
    match array {
        Array::String(texts) => {
            begin(8, texts.len());
            texts.iter().for_each(|text| put_text(out, text));
        }
        Array::I32(values) => {
            begin(5, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::U32(values) => {
            begin(4, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::F32(values) => {
            begin(6, values.len());
            out.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
        Array::Other(values) => {
            begin(values.first().map_or(4, type_id), values.len());
            values.iter().for_each(|value| put_value(out, value));
        }
    }
}
