//! The tensors of a PEFT adapter, sorted by the module that they change.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use pipe_hf::{ADAPTER_WEIGHTS_FILE, AdapterConfig, AdapterTensor, Checkpoint};

use crate::Error;

/// An adapter folder whose keys have been checked.
#[derive(Debug)]
pub struct Adapter {
    /// What `adapter_config.json` says.
    pub settings: AdapterConfig,
    /// The tensors.
    pub tensors: Checkpoint,
    adapted: BTreeSet<String>,
    saved: BTreeSet<String>,
}

/// The two factors of an adapted layer, in float32.
#[derive(Debug, Clone)]
pub struct Pair {
    /// `[r, in]`, row-major.
    pub a: Vec<f32>,
    /// `[out, r]`, row-major.
    pub b: Vec<f32>,
    /// The rank.
    pub r: usize,
    /// Width of the layer's input.
    pub inputs: usize,
    /// Width of its output.
    pub outputs: usize,
}

impl Adapter {
    /// Opens an adapter folder.
    ///
    /// # Errors
    /// If it cannot be read, is no plain LoRA, or lacks half of a pair.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let settings = AdapterConfig::open(dir)?;
        let path = dir.join(ADAPTER_WEIGHTS_FILE);
        let tensors = Checkpoint::open_file(&path)?;
        let mut halves: BTreeMap<String, usize> = BTreeMap::new();
        let mut saved = BTreeSet::new();
        for key in tensors.names() {
            match AdapterTensor::parse(key) {
                Some(AdapterTensor::LoraA { module } | AdapterTensor::LoraB { module }) => {
                    *halves.entry(module).or_default() += 1;
                }
                // Such as `lora_embedding_A`, or the magnitude of DoRA.
                Some(AdapterTensor::Saved { module }) if !module.contains(".lora_") => {
                    saved.insert(module);
                }
                _ => return Err(Error::UnknownTensor { path, key: key.to_owned() }),
            }
        }
        if let Some((module, _)) = halves.iter().find(|(_, count)| **count != 2) {
            return Err(Error::HalfPair { path, module: module.clone() });
        }
        let adapted: BTreeSet<String> = halves.into_keys().collect();
        if let Some(module) = adapted.intersection(&saved).next() {
            return Err(Error::Twice { path, module: module.clone() });
        }
        Ok(Self { settings, tensors, adapted, saved })
    }

    /// The modules with LoRA, sorted: `model.layers.0.self_attn.q_proj`.
    pub fn adapted(&self) -> impl Iterator<Item = &str> {
        self.adapted.iter().map(String::as_str)
    }

    /// The modules trained as a whole, sorted.
    pub fn saved(&self) -> impl Iterator<Item = &str> {
        self.saved.iter().map(String::as_str)
    }

    /// Whether a module has LoRA.
    pub fn adapts(&self, module: &str) -> bool {
        self.adapted.contains(module)
    }

    /// The key of a module's whole weight, if it was trained so.
    pub fn saved_key(&self, module: &str) -> Option<String> {
        self.saved.contains(module).then(|| AdapterTensor::Saved { module: module.to_owned() }.key())
    }

    /// The factors for a layer of shape `[outputs, inputs]`, if it has any.
    ///
    /// # Errors
    /// If they have other shapes, or cannot be read.
    pub fn pair(&self, module: &str, outputs: usize, inputs: usize) -> Result<Option<Pair>, Error> {
        if !self.adapts(module) {
            return Ok(None);
        }
        let r = self.settings.r;
        let read = |key: String, expected: [usize; 2]| {
            let found = &self.tensors.info(&key)?.shape;
            if *found != expected {
                let path = self.tensors.path().to_owned();
                return Err(Error::Shape { path, key, found: found.clone(), expected: expected.to_vec() });
            }
            Ok(self.tensors.read_f32(&key)?)
        };
        let a = read(AdapterTensor::LoraA { module: module.to_owned() }.key(), [r, inputs])?;
        let b = read(AdapterTensor::LoraB { module: module.to_owned() }.key(), [outputs, r])?;
        Ok(Some(Pair { a, b, r, inputs, outputs }))
    }
}
