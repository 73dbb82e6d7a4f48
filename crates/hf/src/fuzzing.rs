//! What must hold of the readers for any bytes whatsoever. The fuzz targets in `fuzz/` call these functions; the tests
//! below call them with the seeds and with every input that once failed.
//!
//! Compiled for the two only.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::{
    ADAPTER_CONFIG_FILE, AdapterConfig, AdapterTensor, CONFIG_FILE, Checkpoint, Dtype, INDEX_FILE, ModelConfig,
    TensorSpec, WEIGHTS_FILE, element_bytes, write_safetensors,
};

/// A folder of its own, gone with the value.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("pipe-hf-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        Self(path)
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.0.join(name);
        fs::write(&path, bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A safetensors file; or, if it begins with a brace, the index of a model whose one shard holds the tensors `a` and `b`;
/// or, if it begins with `#`, a header, a NUL and the data of a file whose length is put before them. Whatever opens can
/// be read, tensor by tensor.
pub fn safetensors(bytes: &[u8]) {
    let folder = Folder::new();
    if bytes.starts_with(b"{") {
        folder.write(INDEX_FILE, bytes);
        shard(&folder.0.join("one.safetensors"));
    } else if let Some(rest) = bytes.strip_prefix(b"#") {
        let (header, data) = rest.split_at(rest.iter().position(|byte| *byte == 0).unwrap_or(rest.len()));
        let length = (header.len() as u64).to_le_bytes();
        folder.write(WEIGHTS_FILE, &[&length, header, data.get(1..).unwrap_or_default()].concat());
    } else {
        folder.write(WEIGHTS_FILE, bytes);
    }
    let Ok(checkpoint) = Checkpoint::open(&folder.0) else { return };
    let mut total = 0;
    for name in checkpoint.names() {
        let info = checkpoint.info(name).unwrap_or_else(|error| panic!("{error}"));
        let data = checkpoint.read(name).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(data.len() as u64, info.length_bytes, "{name}");
        total += info.length_bytes;
        assert!(checkpoint.read_range(name, info.length_bytes, &mut [0]).is_err(), "{name}");
        assert!(checkpoint.read_range(name, u64::MAX, &mut [0; 2]).is_err(), "{name}");
        assert!(checkpoint.same_bytes(name, name).is_ok_and(|same| same), "{name}");
        if let Some(width) = element_bytes(info.dtype) {
            assert_eq!((info.elements() * width) as u64, info.length_bytes, "{name}");
        }
        match checkpoint.read_f32(name) {
            Ok(values) => assert_eq!(values.len(), info.elements(), "{name}"),
            Err(_) => assert!(!matches!(info.dtype, Dtype::F32 | Dtype::BF16 | Dtype::F16), "{name}"),
        }
    }
    assert_eq!(total, checkpoint.total_bytes());
}

fn shard(path: &Path) {
    let tensor = |name| TensorSpec::new(name, Dtype::F32, [2]);
    let written = write_safetensors(path, &[(tensor("a"), &[0; 8]), (tensor("b"), &[1; 8])]);
    written.unwrap_or_else(|error| panic!("{error}"));
}

/// `adapter_config.json`, and the same lines as names of tensors: what is read is written and read back.
pub fn peft(bytes: &[u8]) {
    for key in String::from_utf8_lossy(bytes).lines() {
        if let Some(tensor) = AdapterTensor::parse(key) {
            assert_eq!(tensor.key(), key);
        }
    }
    let folder = Folder::new();
    folder.write(ADAPTER_CONFIG_FILE, bytes);
    let Ok(mut config) = AdapterConfig::open(&folder.0) else { return };
    let again = config.write(&folder.0).and_then(|()| AdapterConfig::open(&folder.0));
    config.target_modules.sort();
    config.modules_to_save.sort();
    assert_eq!(again.unwrap_or_else(|error| panic!("{error}")), config);
}

/// `config.json`: what is read is written and read back, and its parameters can be listed.
pub fn model_config(bytes: &[u8]) {
    let folder = Folder::new();
    folder.write(CONFIG_FILE, bytes);
    let Ok(config) = ModelConfig::open(&folder.0) else { return };
    for parameter in config.parameters() {
        assert!(!parameter.name.is_empty() && !parameter.shape.is_empty());
    }
    let again = config.write(&folder.0).and_then(|()| ModelConfig::open(&folder.0));
    assert_eq!(again.unwrap_or_else(|error| panic!("{error}")), config);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
    use super::*;

    /// Calls `target` with the seeds and the inputs that once failed.
    fn replay(name: &str, target: fn(&[u8])) {
        let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz");
        let mut replayed = 0;
        for folder in ["seeds", "regressions"].map(|folder| fuzz.join(folder).join(name)) {
            let Ok(entries) = fs::read_dir(&folder) else { continue };
            for entry in entries {
                target(&fs::read(entry.unwrap().path()).unwrap());
                replayed += 1;
            }
        }
        assert!(replayed > 0, "nothing to replay for {name}");
    }

    #[test]
    fn files_of_models_and_adapters() {
        replay("safetensors", safetensors);
        replay("peft", peft);
        replay("model_config", model_config);
    }
}
