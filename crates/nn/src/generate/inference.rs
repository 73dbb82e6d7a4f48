//! A model that only answers: a base with or without an adapter, and both from one load.

use std::path::Path;

use tch::Device;

use super::{Generation, GenerationOptions, Session, session::Reader};
use crate::{
    Error, LoraConfig, Model, ModelOptions, Precision, Residency,
    adapter::{AdapterError, SavedAdapter},
    embedding::Table,
    error::Result,
    head::Head,
    loader::Loader,
    norm::RmsNorm,
};

/// How to load a model that only answers.
#[derive(Debug, Clone, Copy)]
pub struct InferenceOptions {
    /// What is computed in.
    pub precision: Precision,
    /// Where. A CUDA device needs `pipe_kernels::load_cuda` first.
    pub device: Device,
    /// Keep all weights as the matrices that products read, in the type of the computation, rather than make those
    /// again for every token: of NF4 weights it takes 8 times the memory in float32, 4 times in bfloat16.
    pub unpacked: bool,
    /// Whether [`Voice::Base`] will be asked, too.
    pub compare: bool,
}

/// Who answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Voice {
    /// The base with its adapter, if it has one.
    Tuned,
    /// The base alone.
    Base,
}

/// A model that only answers.
#[derive(Debug)]
pub struct Inference {
    model: Model,
    /// The base's own embedding and head, where the adapter has others.
    base: Option<(Table, Head)>,
}

/// Why a model cannot be loaded.
#[derive(Debug, thiserror::Error)]
pub enum InferenceError {
    /// The base.
    #[error(transparent)]
    Model(#[from] Error),
    /// The adapter.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
}

impl Inference {
    /// Loads a base from a Hugging Face folder, dense or bitsandbytes-4bit, and puts an adapter on it as it was trained:
    /// not merged.
    ///
    /// # Errors
    /// If a folder is not sound, the two do not fit, or the device has too little memory.
    pub fn load(
        folder: &Path,
        adapter: Option<&SavedAdapter>,
        options: &InferenceOptions,
    ) -> std::result::Result<Self, InferenceError> {
        let InferenceOptions { precision, device, unpacked, compare } = *options;
        let lora = adapter.map_or_else(LoraConfig::default, |adapter| adapter.lora().clone());
        let saves = !lora.modules_to_save.is_empty();
        let mut model = Model::load(
            folder,
            &ModelOptions {
                lora,
                precision,
                device,
                load_in_8bit: false,
                residency: Residency::unbounded(false),
                neftune_noise_alpha: None,
                seed: 0,
            },
        )?;
        if let Some(adapter) = adapter {
            let tied = model.tied();
            adapter.load_into(model.parameters_mut(), tied)?;
        }
        let _guard = tch::no_grad_guard();
        let base = if saves && compare { Some(base_tables(folder, &model, precision, device)?) } else { None };
        freeze_head(&mut model, precision)?;
        if unpacked {
            let Model { decoder, parameters, .. } = &mut model;
            for layer in &mut decoder.layers {
                layer.keep_matrices(parameters.list())?;
            }
        }
        Ok(Self { model, base })
    }

    /// The model.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// Answers `prompt`: nothing is computed before the first token is asked for.
    ///
    /// # Errors
    /// If the prompt is empty or has a token outside of the vocabulary, or a setting is out of its range.
    pub fn generate<'a>(
        &'a self,
        voice: Voice,
        session: &'a mut Session,
        prompt: &[u32],
        options: &GenerationOptions,
    ) -> std::result::Result<Generation<'a>, Error> {
        Generation::begin(self.reader(voice), session, prompt, options)
    }

    /// The logits behind the last of `tokens`, read behind those of the session, `[1, vocabulary]`, float32.
    ///
    /// # Errors
    /// If the device has too little memory.
    pub fn logits(
        &self,
        voice: Voice,
        session: &mut Session,
        tokens: &[u32],
    ) -> std::result::Result<tch::Tensor, Error> {
        session.extend(&self.reader(voice), tokens)
    }

    fn reader(&self, voice: Voice) -> Reader<'_> {
        let mut reader = Reader::of(&self.model);
        if voice == Voice::Base {
            reader.adapters = false;
            if let Some((embedding, head)) = &self.base {
                (reader.embedding, reader.head) = (embedding, head);
            }
        }
        reader
    }
}

/// Makes the head a matrix that products can read as it is.
fn freeze_head(model: &mut Model, precision: Precision) -> Result<()> {
    let matrix = model.decoder.head.table.matrix(precision.compute(), model.parameters.list())?;
    model.decoder.head.table = Table::Frozen(matrix);
    Ok(())
}

fn base_tables(folder: &Path, model: &Model, precision: Precision, device: Device) -> Result<(Table, Head)> {
    let config = model.config();
    let loader = Loader::open(folder, config, (precision, device), false)?;
    let embedding = Table::Frozen(loader.table("model.embed_tokens.weight", true)?);
    let table = match model.tied() {
        true => embedding.shared(),
        false => Table::Frozen(loader.table("lm_head.weight", false)?),
    };
    let table = Table::Frozen(table.matrix(precision.compute(), &[])?);
    let RmsNorm { weight, epsilon } = &model.decoder.head.norm;
    let norm = RmsNorm { weight: weight.shallow_clone(), epsilon: *epsilon };
    Ok((embedding, Head { norm, table, precision, vocab_size: config.vocab_size }))
}
