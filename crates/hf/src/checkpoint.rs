//! Reading safetensors: one file, or shards with an index. Positional reads; nothing is held but the headers.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::unix::fs::FileExt,
    path::{Component, Path, PathBuf},
};

use serde_json::Value;

use crate::{
    Dtype, Error, ModelConfig, Parameter, Role,
    dtype::{element_bytes, widen},
    fields::read_object,
    header::read_header,
};

/// The weights of an unsharded model.
pub const WEIGHTS_FILE: &str = "model.safetensors";
/// The index of a sharded model.
pub const INDEX_FILE: &str = "model.safetensors.index.json";

/// How much is read at once where a tensor is only passed through, bytes.
const CHUNK_BYTES: u64 = 4 << 20;

/// Type and shape of a tensor in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Size, bytes.
    pub length_bytes: u64,
    file: usize,
    /// Where the data starts in its file.
    start: u64,
}

impl TensorInfo {
    /// The number of elements.
    pub fn elements(&self) -> usize {
        // The header was checked: the product fits, and so does its size in bytes.
        self.shape.iter().product()
    }
}

/// The tensors of a model folder or of one safetensors file. Reads from several threads do not disturb each other.
#[derive(Debug)]
pub struct Checkpoint {
    /// What was opened, for errors.
    path: PathBuf,
    files: Vec<(PathBuf, File)>,
    tensors: BTreeMap<String, TensorInfo>,
}

impl Checkpoint {
    /// Opens the weights of a model folder: `model.safetensors`, or else the shards that
    /// `model.safetensors.index.json` lists.
    ///
    /// # Errors
    /// If there are none, or a header or the index is not sound.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let single = dir.join(WEIGHTS_FILE);
        if single.exists() {
            let checkpoint = Self::open_file(&single)?;
            return Ok(Self { path: dir.to_owned(), ..checkpoint });
        }
        let index = dir.join(INDEX_FILE);
        if !index.exists() {
            return Err(Error::NoWeights { path: dir.to_owned(), hint: what_instead(dir) });
        }
        let shard_of = read_index(&index)?;
        let mut checkpoint = Self { path: dir.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        for shard in shard_of.values().collect::<BTreeSet<_>>() {
            checkpoint.add_file(&dir.join(shard), |name| shard_of.get(name) == Some(shard))?;
        }
        for (name, shard) in &shard_of {
            if !checkpoint.tensors.contains_key(name) {
                let problem = format!("lists tensor `{name}` in {shard}, which does not have it");
                return Err(Error::Index { path: index, problem });
            }
        }
        Ok(checkpoint)
    }

    /// Opens one safetensors file, an adapter's for example.
    ///
    /// # Errors
    /// If it cannot be read or its header is not sound.
    pub fn open_file(path: &Path) -> Result<Self, Error> {
        let mut checkpoint = Self { path: path.to_owned(), files: Vec::new(), tensors: BTreeMap::new() };
        checkpoint.add_file(path, |_| true)?;
        Ok(checkpoint)
    }

    fn add_file(&mut self, path: &Path, wanted: impl Fn(&str) -> bool) -> Result<(), Error> {
        let file = File::open(path).map_err(Error::read(path))?;
        let (data_start, metadata) = read_header(path, &file)?;
        for (name, info) in metadata.tensors() {
            if !wanted(&name) {
                continue;
            }
            let (start, end) = (info.data_offsets.0 as u64, info.data_offsets.1 as u64);
            let tensor = TensorInfo {
                dtype: info.dtype,
                shape: info.shape.clone(),
                length_bytes: end - start,
                file: self.files.len(),
                start: data_start + start,
            };
            self.tensors.insert(name, tensor);
        }
        self.files.push((path.to_owned(), file));
        Ok(())
    }

    /// What was opened: a folder, or a file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// The bytes of all tensors together.
    pub fn total_bytes(&self) -> u64 {
        self.tensors.values().map(|info| info.length_bytes).sum()
    }

    /// Type and shape of a tensor.
    ///
    /// # Errors
    /// If there is no tensor of this name.
    pub fn info(&self, name: &str) -> Result<&TensorInfo, Error> {
        self.tensors.get(name).ok_or_else(|| Error::MissingTensor { path: self.path.clone(), name: name.to_owned() })
    }

    /// The bytes of a tensor as they stand in the file, little-endian.
    ///
    /// # Errors
    /// If there is no such tensor or it cannot be read.
    pub fn read(&self, name: &str) -> Result<Vec<u8>, Error> {
        let info = self.info(name)?;
        let mut bytes = vec![0; self.checked_len(name, info.length_bytes)?];
        self.read_range(name, 0, &mut bytes)?;
        Ok(bytes)
    }

    /// Fills `bytes` from byte `offset` of a tensor on.
    ///
    /// # Errors
    /// If there is no such tensor, the range is not in it, or it cannot be read.
    pub fn read_range(&self, name: &str, offset: u64, bytes: &mut [u8]) -> Result<(), Error> {
        let info = self.info(name)?;
        let end = offset.saturating_add(bytes.len() as u64);
        if end > info.length_bytes {
            return Err(Error::Range {
                path: self.path.clone(),
                name: name.to_owned(),
                start: offset,
                end,
                length: info.length_bytes,
            });
        }
        let (path, file) = &self.files[info.file];
        file.read_exact_at(bytes, info.start + offset).map_err(Error::read(path))
    }

    /// The elements of a tensor, widened to float32 (exact for bf16, fp16 and fp32).
    ///
    /// # Errors
    /// If there is no such tensor, it holds something else, or it cannot be read.
    pub fn read_f32(&self, name: &str) -> Result<Vec<f32>, Error> {
        let mut values = vec![0.0; self.info(name)?.elements()];
        self.read_f32_range(name, 0, &mut values)?;
        Ok(values)
    }

    /// Fills `values` from element `first` of a tensor on, widened to float32.
    ///
    /// # Errors
    /// If there is no such tensor, it holds neither bf16, fp16 nor fp32, the range is not in it, or it cannot be read.
    pub fn read_f32_range(&self, name: &str, first: usize, values: &mut [f32]) -> Result<(), Error> {
        let info = self.info(name)?;
        let wrong_type = || Error::ElementType {
            path: self.path.clone(),
            name: name.to_owned(),
            found: info.dtype,
            expected: "BF16, F16 and F32",
        };
        let width = element_bytes(info.dtype).ok_or_else(wrong_type)?;
        let per_chunk = CHUNK_BYTES as usize / width;
        let mut buffer = vec![0; values.len().min(per_chunk) * width];
        let mut offset = (first as u64).saturating_mul(width as u64);
        for chunk in values.chunks_mut(per_chunk) {
            let bytes = &mut buffer[..chunk.len() * width];
            self.read_range(name, offset, bytes)?;
            widen(info.dtype, bytes, chunk).ok_or_else(wrong_type)?;
            offset += bytes.len() as u64;
        }
        Ok(())
    }

    /// Whether two tensors of this checkpoint have the same type, shape and bytes.
    ///
    /// # Errors
    /// If one of them is missing or cannot be read.
    pub fn same_bytes(&self, left: &str, right: &str) -> Result<bool, Error> {
        let (one, other) = (self.info(left)?, self.info(right)?);
        if (one.dtype, &one.shape) != (other.dtype, &other.shape) {
            return Ok(false);
        }
        let length = one.length_bytes;
        let buffer_bytes = self.checked_len(left, length.min(CHUNK_BYTES))?;
        let (mut left_bytes, mut right_bytes) = (vec![0; buffer_bytes], vec![0; buffer_bytes]);
        let mut offset = 0;
        while offset < length {
            let chunk = self.checked_len(left, (length - offset).min(CHUNK_BYTES))?;
            self.read_range(left, offset, &mut left_bytes[..chunk])?;
            self.read_range(right, offset, &mut right_bytes[..chunk])?;
            if left_bytes[..chunk] != right_bytes[..chunk] {
                return Ok(false);
            }
            offset += chunk as u64;
        }
        Ok(true)
    }

    /// Checks that every parameter of `config` is here. Shapes are compared where the weights are not quantised.
    ///
    /// A tied model may hold a copy of its head; a head that differs from the embedding is an error, because readers
    /// disagree on what it means (transformers 5 unties the two, others drop the head).
    ///
    /// # Errors
    /// The first parameter that is missing or of another shape, or a head as described.
    pub fn check(&self, config: &ModelConfig) -> Result<(), Error> {
        for Parameter { name, shape, role } in config.parameters() {
            let info = self.info(&name)?;
            let packed = config.quantization.is_some() && role == Role::Linear && !is_float(info.dtype);
            if !packed && info.shape != shape {
                return Err(Error::Shape { path: self.path.clone(), name, found: info.shape.clone(), expected: shape });
            }
        }
        if config.tie_word_embeddings
            && self.contains("lm_head.weight")
            && !self.same_bytes("lm_head.weight", "model.embed_tokens.weight")?
        {
            return Err(Error::TiedHeadDiffers { path: self.path.clone() });
        }
        Ok(())
    }

    fn checked_len(&self, name: &str, length: u64) -> Result<usize, Error> {
        usize::try_from(length).map_err(|_| Error::Layout {
            path: self.path.clone(),
            name: name.to_owned(),
            problem: "does not fit into the memory of this machine",
        })
    }
}

fn is_float(dtype: Dtype) -> bool {
    matches!(dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16)
}

/// Tensor to shard, from the index. Shards are plain names beside the index.
fn read_index(path: &Path) -> Result<BTreeMap<String, String>, Error> {
    let wrong = |problem: String| Error::Index { path: path.to_owned(), problem };
    let object = read_object(path)?;
    let Some(Value::Object(weight_map)) = object.get("weight_map") else {
        return Err(wrong("has no object `weight_map`".to_owned()));
    };
    let mut shard_of = BTreeMap::new();
    for (name, shard) in weight_map {
        let plain = shard.as_str().filter(|shard| {
            let mut parts = Path::new(shard).components();
            matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None))
        });
        let Some(shard) = plain else {
            return Err(wrong(format!("weight_map: `{name}` must name a file beside the index, not {shard}")));
        };
        shard_of.insert(name.clone(), shard.to_owned());
    }
    Ok(shard_of)
}

/// A guess at what a folder without weights is.
fn what_instead(dir: &Path) -> &'static str {
    let has = |name: &str| dir.join(name).exists();
    if has(crate::ADAPTER_WEIGHTS_FILE) {
        "; it is a PEFT adapter, not a base model"
    } else if has("pytorch_model.bin") || has("pytorch_model.bin.index.json") {
        "; it has pytorch_model.bin, which cannot be read safely: convert it to safetensors"
    } else {
        ""
    }
}
