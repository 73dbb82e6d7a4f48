//! Writing the weights of a model as one safetensors file, or as shards with an index, as transformers does.

use std::{collections::BTreeMap, path::Path};

use serde_json::{Map, Value, json};

use crate::{Error, INDEX_FILE, SafetensorsWriter, TensorSpec, WEIGHTS_FILE, element_bytes, fields::write_object};

/// The weights of a folder that are being written. Shared by reference between threads.
#[derive(Debug)]
pub struct ShardedWriter {
    shards: Vec<(String, SafetensorsWriter)>,
    /// The shard of a tensor.
    shard_of: BTreeMap<String, usize>,
    total_bytes: u64,
    total_values: u64,
    index: std::path::PathBuf,
}

impl ShardedWriter {
    /// Creates the files for `tensors`, in this order: a shard is closed before the tensor that would take it over
    /// `max_shard_bytes`. A tensor larger than that has a shard of its own. Where all fit into one there is no index.
    ///
    /// # Errors
    /// If a name stands twice, a size overflows, or a file cannot be written.
    pub fn create(dir: &Path, tensors: Vec<TensorSpec>, max_shard_bytes: u64) -> Result<Self, Error> {
        let (mut total_bytes, mut total_values) = (0_u64, 0_u64);
        let mut groups: Vec<Vec<TensorSpec>> = vec![Vec::new()];
        let mut bytes_in_shard = 0_u64;
        for tensor in tensors {
            let values = tensor.shape.iter().fold(1_u64, |product, side| product.saturating_mul(*side as u64));
            let bytes = values.saturating_mul(element_bytes(tensor.dtype).unwrap_or(1) as u64);
            total_values = total_values.saturating_add(values);
            total_bytes = total_bytes.saturating_add(bytes);
            if bytes_in_shard > 0 && bytes_in_shard.saturating_add(bytes) > max_shard_bytes {
                groups.push(Vec::new());
                bytes_in_shard = 0;
            }
            bytes_in_shard = bytes_in_shard.saturating_add(bytes);
            if let Some(last) = groups.last_mut() {
                last.push(tensor);
            }
        }
        let count = groups.len();
        let mut shards = Vec::with_capacity(count);
        let mut shard_of = BTreeMap::new();
        for (number, group) in groups.into_iter().enumerate() {
            let name = match count {
                1 => WEIGHTS_FILE.to_owned(),
                _ => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
            };
            let path = dir.join(&name);
            for tensor in &group {
                if shard_of.insert(tensor.name.clone(), number).is_some() {
                    let problem = "is declared twice";
                    return Err(Error::Layout { path, name: tensor.name.clone(), problem });
                }
            }
            shards.push((name, SafetensorsWriter::create(&path, group)?));
        }
        Ok(Self { shards, shard_of, total_bytes, total_values, index: dir.join(INDEX_FILE) })
    }

    /// Writes `bytes` from byte `offset` of a tensor on. Each byte must be written once.
    ///
    /// # Errors
    /// If the tensor was not declared, the range is not in it, or it cannot be written.
    pub fn write_range(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        match self.shard_of.get(name) {
            Some(shard) => self.shards[*shard].1.write_range(name, offset, bytes),
            None => {
                let problem = "was not declared";
                Err(Error::Layout { path: self.index.clone(), name: name.to_owned(), problem })
            }
        }
    }

    /// Writes the headers, and the index where there are several files. Every declared byte must have been written.
    ///
    /// # Errors
    /// If a tensor is incomplete, or a file cannot be written.
    pub fn finish(self) -> Result<(), Error> {
        let names: Vec<String> = self.shards.iter().map(|(name, _)| name.clone()).collect();
        for (_, writer) in self.shards {
            writer.finish()?;
        }
        if names.len() == 1 {
            return Ok(());
        }
        let weight_map: Map<String, Value> =
            self.shard_of.iter().map(|(tensor, shard)| (tensor.clone(), json!(names[*shard]))).collect();
        let metadata = json!({ "total_parameters": self.total_values, "total_size": self.total_bytes });
        let object = [("metadata".to_owned(), metadata), ("weight_map".to_owned(), Value::Object(weight_map))];
        write_object(&self.index, &object.into_iter().collect())
    }
}
