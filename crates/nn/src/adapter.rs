//! Adapters on disk, as PEFT writes and reads them.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use pipe_hf::{ADAPTER_WEIGHTS_FILE, AdapterConfig, AdapterTensor, Checkpoint, Dtype, SafetensorsWriter, TensorSpec};

use crate::{LoraConfig, Parameter, transfer};

const EMBEDDING: &str = "model.embed_tokens";
const HEAD: &str = "lm_head";

/// Writes `adapter_config.json` and `adapter_model.safetensors` into `folder`.
///
/// A model that is `tied` and trains its embedding saves it under both its names, with `ensure_weight_tying`, so that
/// PEFT makes one parameter of the two again. `base_model` is a published name, never a path.
///
/// # Errors
/// If a file cannot be written.
///
/// # Source
/// PEFT, `PeftModel.save_pretrained`.
pub fn save_adapter(
    folder: &Path,
    parameters: &[Parameter],
    lora: &LoraConfig,
    tied: bool,
    base_model: Option<String>,
) -> Result<(), AdapterError> {
    let tied = tied && !lora.modules_to_save.is_empty();
    let keys = |parameter: &Parameter| {
        let mut keys = vec![parameter.name.clone()];
        if tied && parameter.name == saved_key(EMBEDDING) {
            keys.push(saved_key(HEAD));
        }
        keys
    };
    let mut specs = Vec::new();
    for parameter in parameters {
        let shape: Vec<usize> = parameter.size().iter().map(|side| usize::try_from(*side).unwrap_or(0)).collect();
        specs.extend(keys(parameter).into_iter().map(|key| TensorSpec::new(key, Dtype::F32, shape.clone())));
    }
    let writer = SafetensorsWriter::create(&folder.join(ADAPTER_WEIGHTS_FILE), specs)?;
    for parameter in parameters {
        for key in keys(parameter) {
            let write = |offset, bytes: &[u8]| Ok(writer.write_range(&key, offset, bytes)?);
            transfer::to_bytes(&parameter.value, write, copy_error(&key))?;
        }
    }
    writer.finish()?;
    let config = AdapterConfig {
        base_model,
        r: lora.r,
        lora_alpha: lora.lora_alpha,
        lora_dropout: lora.lora_dropout,
        use_rslora: lora.use_rslora,
        target_modules: lora.target_modules.clone(),
        modules_to_save: lora.modules_to_save.clone(),
        ensure_weight_tying: tied,
    };
    Ok(config.write(folder)?)
}

/// An adapter folder that was opened: PEFT's, or what [`save_adapter`] wrote.
#[derive(Debug)]
pub struct SavedAdapter {
    folder: PathBuf,
    lora: LoraConfig,
    tensors: Checkpoint,
}

/// What can be wrong with an adapter.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file is missing, damaged, or asks for what is not supported.
    #[error(transparent)]
    Files(#[from] pipe_hf::Error),
    /// A tensor could not be copied.
    #[error("cannot copy the tensor `{key}`")]
    Tensor {
        /// The tensor.
        key: String,
        /// Why it failed.
        source: Box<crate::Error>,
    },
    /// The adapter's settings are not those that were asked for.
    #[error(
        "the adapter in {} has {field} {adapter}, and this stage says `lora.{field}: {stage}`; make the two equal",
        .folder.display()
    )]
    Disagrees {
        /// The adapter.
        folder: PathBuf,
        /// The setting.
        field: &'static str,
        /// Its value in the adapter.
        adapter: String,
        /// Its value in the stage.
        stage: String,
    },
    /// The adapter lacks a tensor that the model needs.
    #[error("the adapter in {} has no tensor `{key}`, which this base needs: it was made for another", .folder.display())]
    Missing {
        /// The adapter.
        folder: PathBuf,
        /// The tensor.
        key: String,
    },
    /// The adapter has a tensor that the model does not know.
    #[error("the adapter in {} has a tensor `{key}`, which this base has no place for: it was made for another", .folder.display())]
    Unexpected {
        /// The adapter.
        folder: PathBuf,
        /// The tensor.
        key: String,
    },
    /// A tensor has another shape than the model's.
    #[error("the adapter in {} has `{key}` of the shape {found:?}, this base needs {expected:?}", .folder.display())]
    Shape {
        /// The adapter.
        folder: PathBuf,
        /// The tensor.
        key: String,
        /// Its shape in the adapter.
        found: Vec<usize>,
        /// Its shape in the model.
        expected: Vec<i64>,
    },
    /// Embedding and head were trained apart, and this base ties them.
    #[error(
        "the adapter in {} holds an embedding and a head that differ, and this base ties the two; \
         merge it into an untied model first", .folder.display()
    )]
    TiedApart {
        /// The adapter.
        folder: PathBuf,
    },
}

impl SavedAdapter {
    /// Opens an adapter folder.
    ///
    /// # Errors
    /// If a file is missing or damaged, or is not of plain LoRA.
    pub fn open(folder: &Path) -> Result<Self, AdapterError> {
        let config = AdapterConfig::open(folder)?;
        let tensors = Checkpoint::open_file(&folder.join(ADAPTER_WEIGHTS_FILE))?;
        let (mut targets, mut saved) = (BTreeSet::new(), BTreeSet::new());
        for key in tensors.names() {
            // The lists of adapter_config.json may hold ends of paths, or repeat a module; the tensors do not.
            let last = |module: &str| module.rsplit('.').next().unwrap_or(module).to_owned();
            match AdapterTensor::parse(key) {
                Some(AdapterTensor::LoraA { module } | AdapterTensor::LoraB { module }) => {
                    targets.insert(last(&module))
                }
                Some(AdapterTensor::Saved { module }) => saved.insert(last(&module)),
                None => return Err(AdapterError::Unexpected { folder: folder.to_owned(), key: key.to_owned() }),
            };
        }
        let lora = LoraConfig {
            r: config.r,
            lora_alpha: config.lora_alpha,
            target_modules: targets.into_iter().collect(),
            lora_dropout: config.lora_dropout,
            use_rslora: config.use_rslora,
            modules_to_save: saved.into_iter().collect(),
        };
        Ok(Self { folder: folder.to_owned(), lora, tensors })
    }

    /// The settings of a model that takes this adapter.
    pub fn lora(&self) -> &LoraConfig {
        &self.lora
    }

    /// Checks that training with the settings `stage` goes on where this adapter ended.
    ///
    /// # Errors
    /// If the two differ in rank, scale or modules. `stage` may train more modules whole, and drop out otherwise.
    pub fn check(&self, stage: &LoraConfig) -> Result<(), AdapterError> {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            format!("[{}]", names.join(", "))
        };
        let adapter = &self.lora;
        let pairs = [
            ("r", adapter.r.to_string(), stage.r.to_string()),
            ("lora_alpha", adapter.lora_alpha.to_string(), stage.lora_alpha.to_string()),
            ("use_rslora", adapter.use_rslora.to_string(), stage.use_rslora.to_string()),
            ("target_modules", sorted(&adapter.target_modules), sorted(&stage.target_modules)),
        ];
        let disagrees =
            |field, adapter, stage| AdapterError::Disagrees { folder: self.folder.clone(), field, adapter, stage };
        for (field, adapter, stage) in pairs {
            if adapter != stage {
                return Err(disagrees(field, adapter, stage));
            }
        }
        if adapter.modules_to_save.iter().any(|module| !stage.modules_to_save.contains(module)) {
            let (adapter, stage) = (sorted(&adapter.modules_to_save), sorted(&stage.modules_to_save));
            return Err(disagrees("modules_to_save", adapter, stage));
        }
        Ok(())
    }

    /// Puts the adapter's tensors into the parameters of a model. Modules trained whole that the adapter does not have
    /// keep their values.
    ///
    /// # Errors
    /// If the adapter does not fit the model.
    pub fn load_into(&self, parameters: &mut [Parameter], tied: bool) -> Result<(), AdapterError> {
        let (embedding, head) = (saved_key(EMBEDDING), saved_key(HEAD));
        let mut known: BTreeSet<&str> = parameters.iter().map(|parameter| parameter.name.as_str()).collect();
        if tied && self.tensors.contains(&head) {
            let one = self.tensors.contains(&embedding) && self.tensors.same_bytes(&embedding, &head)?;
            if !one {
                return Err(AdapterError::TiedApart { folder: self.folder.clone() });
            }
            known.insert(&head);
        }
        if let Some(key) = self.tensors.names().find(|key| !known.contains(key)) {
            return Err(AdapterError::Unexpected { folder: self.folder.clone(), key: key.to_owned() });
        }
        for parameter in parameters {
            if self.tensors.contains(&parameter.name) {
                self.load(parameter)?;
            } else if !matches!(AdapterTensor::parse(&parameter.name), Some(AdapterTensor::Saved { .. })) {
                return Err(AdapterError::Missing { folder: self.folder.clone(), key: parameter.name.clone() });
            }
        }
        Ok(())
    }

    fn load(&self, parameter: &mut Parameter) -> Result<(), AdapterError> {
        let key = &parameter.name;
        let found = &self.tensors.info(key)?.shape;
        let expected = parameter.size().to_vec();
        if !found.iter().map(|side| i64::try_from(*side).unwrap_or(-1)).eq(expected.iter().copied()) {
            let (folder, key, found) = (self.folder.clone(), key.clone(), found.clone());
            return Err(AdapterError::Shape { folder, key, found, expected });
        }
        let read = |offset: u64, bytes: &mut [u8]| {
            let mut values = vec![0.0; bytes.len() / size_of::<f32>()];
            let first = usize::try_from(offset).unwrap_or(usize::MAX) / size_of::<f32>();
            self.tensors.read_f32_range(key, first, &mut values)?;
            for (word, value) in bytes.chunks_exact_mut(size_of::<f32>()).zip(values) {
                word.copy_from_slice(&value.to_le_bytes());
            }
            Ok(())
        };
        transfer::from_bytes(&mut parameter.value, read, copy_error(key))
    }
}

fn saved_key(module: &str) -> String {
    AdapterTensor::Saved { module: module.to_owned() }.key()
}

fn copy_error(key: &str) -> impl Fn(crate::Error) -> AdapterError {
    move |source| AdapterError::Tensor { key: key.to_owned(), source: Box::new(source) }
}
