//! A model with what is trained of it.
#![expect(non_snake_case, reason = "shape suffixes: T tokens")]

use std::path::Path;

use pipe_hf::{AdapterTensor, ModelConfig};
use pipe_kernels::{Preparation, Readback, upload};
use tch::{Device, Tensor};

use crate::{
    Error, LoraConfig, PackedBatch, Parameter, Place, Precision, Residency,
    decoder::{Decoder, Observer, Shape},
    dropout::Dropout,
    embedding::Table,
    error::Result,
    head::{Head, Targets},
    layer::{Depth, Layer},
    layer_inputs::LayerInputs,
    loader::Loader,
    neftune::Neftune,
    parameter::Parameters,
    rope::RopeTable,
};

/// How to load a model.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// What is trained.
    pub lora: LoraConfig,
    /// What is computed in.
    pub precision: Precision,
    /// Hold the linear layers of the blocks in 8 bits, a scale a row, as bitsandbytes' LLM.int8 stores them. They are
    /// quantised from a base that is not packed yet, and unpacked to the type of the computation for every product.
    pub load_in_8bit: bool,
    /// Where. A CUDA device needs `pipe_kernels::load_cuda` first.
    pub device: Device,
    /// What of an update stays in the device's memory: no choice changes a number.
    pub residency: Residency,
    /// Noise on the embedding's output while training (NEFTune, arXiv:2310.05914), above 0: uniform in
    /// `±alpha / sqrt(length of the sample * hidden_size)`. `None` adds none.
    pub neftune_noise_alpha: Option<f64>,
    /// Seed of fresh adapters, of dropout and of noise.
    pub seed: u64,
}

/// The loss of one pass.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchLoss {
    /// Sum of the negative log-likelihoods of all targets, in nats.
    pub sum_nll: f64,
    /// How many targets there were.
    pub labels: u64,
    /// The same for each sample, in the order of the batch.
    pub per_sample: Vec<(f64, u64)>,
}

/// The loss of a pass that the device may still be computing.
#[derive(Debug)]
pub struct PendingLoss {
    losses: Option<Readback>,
    /// Of each sample.
    labels: Vec<usize>,
}

/// A decoder, frozen but for its [`Parameter`]s.
#[derive(Debug)]
pub struct Model {
    pub(crate) config: ModelConfig,
    pub(crate) decoder: Decoder,
    pub(crate) parameters: Parameters,
    /// Of the pass that is computed.
    inputs: LayerInputs,
    dropout: Dropout,
    neftune: Option<Neftune>,
    loss_scale: f64,
    /// Kernels in work, for as long as the model lives.
    _kernels: Preparation,
}

impl Model {
    /// Reads a Hugging Face folder, dense or bitsandbytes-4bit, and adds fresh adapters.
    ///
    /// # Errors
    /// If the folder or the LoRA settings are not sound, or the device has too little memory.
    pub fn load(dir: &Path, options: &ModelOptions) -> std::result::Result<Self, Error> {
        let _guard = tch::no_grad_guard();
        Self::read(dir, options).map_err(|error| error.at(Place::Weights))
    }

    fn read(dir: &Path, options: &ModelOptions) -> Result<Self> {
        let ModelOptions { lora, precision, device, residency, neftune_noise_alpha, seed, .. } = options;
        lora.check()?;
        let config = ModelConfig::open(dir)?;
        // Compiled while the weights are read.
        let kernels = pipe_kernels::prepare(precision.compute(), config.head_dim as i64, *device);
        let loader = Loader::open(dir, &config, (*precision, *device), options.load_in_8bit)?;
        let mut parameters = Vec::new();
        let tied = config.tie_word_embeddings;
        let embedding = if lora.saves("embed_tokens") || tied && lora.saves("lm_head") {
            trained("model.embed_tokens", &loader, *precision, &mut parameters)?
        } else if residency.embedding_on_host && !tied {
            Table::Host(loader.table_on_host("model.embed_tokens.weight")?)
        } else {
            Table::Frozen(loader.table("model.embed_tokens.weight", true)?)
        };
        let mut layers = Vec::with_capacity(config.num_hidden_layers);
        for number in 0..config.num_hidden_layers {
            layers.push(Layer::load(number, &config, &loader, lora, (*seed, *precision, *device), &mut parameters)?);
        }
        let head = if tied {
            embedding.shared()
        } else if lora.saves("lm_head") {
            trained("lm_head", &loader, *precision, &mut parameters)?
        } else {
            Table::Frozen(loader.table("lm_head.weight", false)?)
        };
        let norm = loader.norm("model.norm.weight")?;
        let lowest = if embedding.trained().is_some() { Some(Depth::Input) } else { Depth::of_targets(lora) };
        let decoder = Decoder {
            embedding,
            layers,
            head: Head { norm, table: head, precision: *precision, vocab_size: config.vocab_size },
            shape: Shape { head_dim: config.head_dim, precision: *precision, device: *device },
            rope: RopeTable::new(config.head_dim, config.rope_theta, *precision, *device),
            padding: config.pad_token_id,
            residency: *residency,
            lowest,
        };
        let dropout = Dropout { probability: lora.lora_dropout, seed: *seed };
        let neftune = neftune_noise_alpha.map(|alpha| Neftune { alpha, seed: *seed });
        let (parameters, inputs) = (Parameters::new(parameters)?, LayerInputs::new(*residency, *device)?);
        Ok(Self { config, decoder, parameters, inputs, dropout, neftune, loss_scale: 1.0, _kernels: kernels })
    }

    /// The shape of the base.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Whether embedding and head are one matrix.
    pub fn tied(&self) -> bool {
        self.config.tie_word_embeddings
    }

    /// What is trained, in the order of the model: embedding, adapters layer by layer, head.
    pub fn parameters(&self) -> &[Parameter] {
        self.parameters.list()
    }

    /// The same, to be changed.
    pub fn parameters_mut(&mut self) -> &mut [Parameter] {
        self.parameters.list_mut()
    }

    /// The same, for an optimizer.
    pub fn trained(&self) -> &Parameters {
        &self.parameters
    }

    /// The same, for an optimizer that changes them.
    pub fn trained_mut(&mut self) -> &mut Parameters {
        &mut self.parameters
    }

    /// Makes gradients those of the loss times `scale`, above 0, from the next pass on; 1 at first. The loss stays as it
    /// is.
    pub fn set_loss_scale(&mut self, scale: f64) {
        self.loss_scale = scale;
    }

    /// Sets every gradient to zero.
    ///
    /// # Errors
    /// If the device fails.
    pub fn zero_grad(&mut self) -> std::result::Result<(), Error> {
        self.parameters.zero_grad()
    }

    /// The loss of a pass with dropout and noise; adds the gradient of `sum of NLL / label_count` to the parameters.
    ///
    /// `label_count` is the number of targets of the whole optimizer update, of which the batch may be a part;
    /// `update` numbers it, for dropout and noise. Waits for the device once, at the end.
    ///
    /// # Errors
    /// If the batch does not fit the model, or the device has too little memory.
    pub fn forward_backward(
        &mut self,
        batch: &PackedBatch,
        label_count: u64,
        update: u64,
    ) -> std::result::Result<BatchLoss, Error> {
        self.enqueue(batch, label_count, update)?.read()
    }

    /// [`Model::forward_backward`] without waiting for the device: the loss is read later.
    ///
    /// # Errors
    /// If the batch does not fit the model, or the device has too little memory.
    pub fn enqueue(
        &mut self,
        batch: &PackedBatch,
        label_count: u64,
        update: u64,
    ) -> std::result::Result<PendingLoss, Error> {
        self.observed(batch, label_count, update, None)
    }

    /// The loss of a pass without dropout, noise or gradient.
    ///
    /// # Errors
    /// If the batch does not fit the model, or the device has too little memory.
    pub fn loss(&self, batch: &PackedBatch) -> std::result::Result<BatchLoss, Error> {
        let _guard = tch::no_grad_guard();
        batch.check_vocabulary(self.config.vocab_size)?;
        let Some(targets) = Targets::new(batch, self.decoder.shape.device)? else {
            return PendingLoss::none(batch).read();
        };
        let pass = self.decoder.pass(batch)?;
        let h = self.decoder.forward(&pass, self.parameters.list())?;
        let losses = self.decoder.head.loss(&h, &targets, self.parameters.list());
        PendingLoss::new(&losses.map_err(|error| error.at(Place::Head))?, batch)?.read()
    }

    /// The logits of every position of a pass, without dropout, `[tokens, vocabulary]`, float32. For short texts: the
    /// result is large.
    ///
    /// # Errors
    /// If the batch does not fit the model, or the device has too little memory.
    pub fn logits(&self, batch: &PackedBatch) -> std::result::Result<Tensor, Error> {
        let _guard = tch::no_grad_guard();
        batch.check_vocabulary(self.config.vocab_size)?;
        let pass = self.decoder.pass(batch)?;
        self.decoder.head.logits(&self.decoder.forward(&pass, self.parameters.list())?, self.parameters.list())
    }

    /// [`Model::forward_backward`] with a look at what it computes on the way.
    pub(crate) fn observed(
        &mut self,
        batch: &PackedBatch,
        label_count: u64,
        update: u64,
        observe: Option<&mut Observer<'_>>,
    ) -> Result<PendingLoss> {
        let _guard = tch::no_grad_guard();
        batch.check_vocabulary(self.config.vocab_size)?;
        if label_count < batch.labels() {
            return Err(Error::LabelCount { update: label_count, batch: batch.labels() });
        }
        let device = self.decoder.shape.device;
        let Some(targets) = Targets::new(batch, device)? else { return Ok(PendingLoss::none(batch)) };
        let mut pass = self.decoder.pass(batch)?;
        let places_T = upload(&batch.places(), device)?;
        let tokens = [&places_T, &pass.positions];
        let width = self.config.hidden_size;
        let noise = self.neftune.map(|neftune| neftune.pass(update, batch, width, tokens)).transpose()?;
        pass.dropout = self.dropout.pass(update, tokens);
        let losses = self.decoder.forward_backward(
            &pass,
            (batch, noise),
            (&targets, label_count as f64 / self.loss_scale),
            (self.parameters.list_mut(), &mut self.inputs),
            observe,
        )?;
        PendingLoss::new(&losses, batch)
    }
}

fn trained(module: &str, loader: &Loader, precision: Precision, parameters: &mut Vec<Parameter>) -> Result<Table> {
    let key = AdapterTensor::Saved { module: module.to_owned() }.key();
    let weights = loader.master(&format!("{module}.weight"))?;
    parameters.push(Parameter::table(key, &weights, precision == Precision::Bf16)?);
    Ok(Table::Trained(parameters.len() - 1))
}

impl PendingLoss {
    fn new(losses: &Tensor, batch: &PackedBatch) -> Result<Self> {
        Ok(Self { losses: Some(Readback::new(losses)?), labels: batch.spans.iter().map(|span| span.labels).collect() })
    }

    fn none(batch: &PackedBatch) -> Self {
        Self { losses: None, labels: vec![0; batch.spans.len()] }
    }

    /// The loss. Waits until the device has come so far.
    ///
    /// # Errors
    /// If the device failed.
    pub fn read(self) -> std::result::Result<BatchLoss, Error> {
        let losses = match self.losses {
            Some(losses) => losses.read()?,
            None => Vec::new(),
        };
        let mut rest = losses.as_slice();
        let per_sample: Vec<(f64, u64)> = self
            .labels
            .iter()
            .map(|labels| {
                let (own, others) = rest.split_at(*labels);
                rest = others;
                (own.iter().sum(), *labels as u64)
            })
            .collect();
        let labels = per_sample.iter().map(|(_, labels)| labels).sum();
        Ok(BatchLoss { sum_nll: per_sample.iter().map(|(sum, _)| sum).sum(), labels, per_sample })
    }
}
