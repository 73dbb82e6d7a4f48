//! Reading a GGUF file by position. Nothing is held but metadata and the table of tensors.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use crate::{ALIGNMENT, Array, Error, Metadata, TensorType, Value};

/// More keys, tensors or dimensions than any file has: a file that says more is damaged.
const MOST_ENTRIES: u64 = 1 << 20;
/// Arrays in arrays deeper than this are refused.
const DEEPEST: u32 = 4;

/// A tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorEntry {
    /// How it is stored.
    pub tensor_type: TensorType,
    /// Shape, row-major: the other way round than in the file.
    pub shape: Vec<usize>,
    /// Where its data begins in the file.
    pub start: u64,
    /// Its size, bytes.
    pub bytes: u64,
}

/// An open file. Reads from several threads do not disturb each other.
#[derive(Debug)]
pub struct GgufReader {
    path: PathBuf,
    file: File,
    metadata: Metadata,
    tensors: BTreeMap<String, TensorEntry>,
}

impl GgufReader {
    /// Opens a file of version 2 or 3, little-endian.
    ///
    /// # Errors
    /// If it cannot be read, its header is not sound, or a tensor has a type that is not read here.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let file = File::open(path).map_err(Error::read(path))?;
        let file_bytes = file.metadata().map_err(Error::read(path))?.len();
        let mut header = Header { path, input: BufReader::with_capacity(1 << 20, &file), at: 0, file_bytes };
        if &header.array::<4>()? != b"GGUF" {
            return Err(header.wrong("it does not begin with `GGUF`"));
        }
        let version = header.u32()?;
        if !(2..=3).contains(&version) {
            return Err(header.wrong(format!("its version is {version}; 2 and 3 can be read, little-endian")));
        }
        let (tensor_count, key_count) = (header.count()?, header.count()?);
        let mut metadata = Metadata::new();
        for _ in 0..key_count {
            let key = header.text()?;
            let id = header.u32()?;
            let value = header.value(id, 0)?;
            if metadata.get(&key).is_some() {
                return Err(header.wrong(format!("the key `{key}` stands twice")));
            }
            metadata.set(key, value);
        }
        let mut tensors = BTreeMap::new();
        for _ in 0..tensor_count {
            let (name, entry) = header.tensor()?;
            if tensors.insert(name.clone(), entry).is_some() {
                return Err(header.wrong(format!("the tensor `{name}` stands twice")));
            }
        }
        let alignment = metadata.get("general.alignment").and_then(Value::as_u64).unwrap_or(ALIGNMENT);
        if !alignment.is_power_of_two() {
            return Err(header.wrong(format!("general.alignment is {alignment}, no power of two")));
        }
        let data = header.at.next_multiple_of(alignment);
        for (name, entry) in &mut tensors {
            let aligned = entry.start.is_multiple_of(alignment);
            let start = entry.start.checked_add(data);
            let end = start.and_then(|start| start.checked_add(entry.bytes));
            match (start, end) {
                (Some(start), Some(end)) if aligned && end <= file_bytes => entry.start = start,
                _ => {
                    let problem = "lies outside of the file, or not on its alignment; it is cut short or damaged: \
                                   fetch it again";
                    return Err(Error::Tensor {
                        path: path.to_owned(),
                        name: name.clone(),
                        problem: problem.to_owned(),
                    });
                }
            }
        }
        Ok(Self { path: path.to_owned(), file, metadata, tensors })
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All that it says of itself.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor.
    ///
    /// # Errors
    /// If there is none of this name.
    pub fn entry(&self, name: &str) -> Result<&TensorEntry, Error> {
        self.tensors.get(name).ok_or_else(|| self.wrong(name, "is missing".to_owned()))
    }

    /// Fills `values` from element `first` of a tensor on, restored to float32. Both ends must lie between blocks.
    ///
    /// # Errors
    /// If there is no such tensor, the range is not in it, or it cannot be read.
    pub fn read_f32_range(&self, name: &str, first: usize, values: &mut [f32]) -> Result<(), Error> {
        let entry = self.entry(name)?;
        let (Some(offset), Some(length)) = (entry.tensor_type.bytes(first), entry.tensor_type.bytes(values.len()))
        else {
            return Err(self.wrong(name, "was asked for a part of a block".to_owned()));
        };
        if (offset as u64).saturating_add(length as u64) > entry.bytes {
            return Err(self.wrong(name, "was asked for more than it has".to_owned()));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, entry.start + offset as u64).map_err(Error::read(&self.path))?;
        let decoded = entry.tensor_type.decode(&bytes, values);
        decoded.ok_or_else(|| self.wrong(name, "was asked for a part of a block".to_owned()))
    }

    /// The bytes of a tensor as they stand in the file.
    ///
    /// # Errors
    /// If there is no such tensor, or it cannot be read.
    pub fn read_bytes(&self, name: &str) -> Result<Vec<u8>, Error> {
        let entry = self.entry(name)?;
        // Inside of the file, so that it is no larger than that.
        let mut bytes = vec![0; entry.bytes as usize];
        self.file.read_exact_at(&mut bytes, entry.start).map_err(Error::read(&self.path))?;
        Ok(bytes)
    }

    fn wrong(&self, name: &str, problem: String) -> Error {
        Error::Tensor { path: self.path.clone(), name: name.to_owned(), problem }
    }
}

/// The part of a file before the data, as a stream with a known place.
struct Header<'a> {
    path: &'a Path,
    input: BufReader<&'a File>,
    at: u64,
    file_bytes: u64,
}

impl Header<'_> {
    fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Format { path: self.path.to_owned(), problem: problem.into() }
    }

    fn bytes(&mut self, length: u64) -> Result<Vec<u8>, Error> {
        if length > self.file_bytes - self.at {
            return Err(self.wrong("its header ends beyond the end of the file; it is cut short or damaged"));
        }
        let mut bytes = vec![0; length as usize];
        self.input.read_exact(&mut bytes).map_err(Error::read(self.path))?;
        self.at += length;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let mut array = [0; N];
        array.copy_from_slice(&self.bytes(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, Error> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Error> {
        self.array().map(u64::from_le_bytes)
    }

    fn count(&mut self) -> Result<u64, Error> {
        match self.u64()? {
            count if count <= MOST_ENTRIES => Ok(count),
            count => Err(self.wrong(format!("it claims {count} entries"))),
        }
    }

    fn text(&mut self) -> Result<String, Error> {
        let length = self.u64()?;
        let bytes = self.bytes(length)?;
        String::from_utf8(bytes).map_err(|_| self.wrong("a text in its header is not UTF-8"))
    }

    fn value(&mut self, id: u32, depth: u32) -> Result<Value, Error> {
        Ok(match id {
            0 => Value::U8(u8::from_le_bytes(self.array()?)),
            1 => Value::I8(i8::from_le_bytes(self.array()?)),
            2 => Value::U16(u16::from_le_bytes(self.array()?)),
            3 => Value::I16(i16::from_le_bytes(self.array()?)),
            4 => Value::U32(self.u32()?),
            5 => Value::I32(i32::from_le_bytes(self.array()?)),
            6 => Value::F32(f32::from_le_bytes(self.array()?)),
            7 => Value::Bool(self.array::<1>()? != [0]),
            8 => Value::String(self.text()?),
            9 => Value::Array(self.list(depth)?),
            10 => Value::U64(self.u64()?),
            11 => Value::I64(i64::from_le_bytes(self.array()?)),
            12 => Value::F64(f64::from_le_bytes(self.array()?)),
            other => return Err(self.wrong(format!("it has a value of the unknown type {other}"))),
        })
    }

    fn list(&mut self, depth: u32) -> Result<Array, Error> {
        let id = self.u32()?;
        let length = self.u64()?;
        // An element takes at least a byte.
        if length > self.file_bytes - self.at || depth >= DEEPEST {
            return Err(self.wrong(format!("it claims a list of {length} values")));
        }
        match id {
            4 => (0..length).map(|_| self.u32()).collect::<Result<_, _>>().map(Array::U32),
            5 => (0..length).map(|_| self.array().map(i32::from_le_bytes)).collect::<Result<_, _>>().map(Array::I32),
            6 => (0..length).map(|_| self.array().map(f32::from_le_bytes)).collect::<Result<_, _>>().map(Array::F32),
            8 => (0..length).map(|_| self.text()).collect::<Result<_, _>>().map(Array::String),
            _ => (0..length).map(|_| self.value(id, depth + 1)).collect::<Result<_, _>>().map(Array::Other),
        }
    }

    fn tensor(&mut self) -> Result<(String, TensorEntry), Error> {
        let name = self.text()?;
        let dimensions = self.u32()?;
        if dimensions > 4 {
            return Err(self.wrong(format!("the tensor `{name}` has {dimensions} dimensions")));
        }
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            let side = self.u64()?;
            shape.push(usize::try_from(side).map_err(|_| self.wrong(format!("the tensor `{name}` is too large")))?);
        }
        shape.reverse();
        let id = self.u32()?;
        let start = self.u64()?;
        let Some(tensor_type) = TensorType::from_id(id) else {
            return Err(self.wrong(format!(
                "the tensor `{name}` has the type {id}; F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K and Q6_K \
                 can be read"
            )));
        };
        let elements = shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
        let columns = shape.last().copied().unwrap_or(1);
        let bytes = elements.filter(|_| columns.is_multiple_of(tensor_type.block()));
        let bytes = bytes.and_then(|elements| tensor_type.bytes(elements));
        match bytes {
            Some(bytes) => Ok((name, TensorEntry { tensor_type, shape, start, bytes: bytes as u64 })),
            None => Err(self.wrong(format!("the tensor `{name}` has the impossible shape {shape:?}"))),
        }
    }
}
