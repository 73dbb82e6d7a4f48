//! What a run reads, checked before the first update: an error hours later would be a poor joke.

use std::path::Path;

use pipe_hf::{Dtype, ModelConfig, torch_name};
use pipe_samples::{IGNORED, Samples};
use pipe_stage::Context;

use crate::{Config, error::Error};

/// The shape of the base, and samples to train on and to evaluate on.
pub(crate) struct Inputs {
    pub(crate) base: ModelConfig,
    pub(crate) samples: Samples,
    pub(crate) held_out: Option<Samples>,
}

impl Inputs {
    /// Reads the samples and compares them, and the configuration, with the base.
    pub(crate) fn load(config: &Config, base: &Path, samples: &Path, context: &Context) -> Result<Self, Error> {
        let base = ModelConfig::open(base)?;
        check_base(config, &base, context)?;
        let samples = load_samples("samples", samples, &base, context)?;
        let held_out = context.optional_input("eval");
        let held_out = held_out.map(|folder| load_samples("eval", folder, &base, context)).transpose()?;
        Ok(Self { base, samples, held_out })
    }
}

fn check_base(config: &Config, base: &ModelConfig, context: &Context) -> Result<(), Error> {
    if base.tie_word_embeddings
        && let [module] = &config.lora.modules_to_save[..]
    {
        return Err(Error::HalfTied { module: module.clone() });
    }
    let (compute, field) = match (config.bf16, config.fp16) {
        (true, _) => (Dtype::BF16, "bf16: true"),
        (_, true) => (Dtype::F16, "fp16: true"),
        _ => (Dtype::F32, "bf16: false"),
    };
    if let Some(quantization) = &base.quantization
        && quantization.compute_dtype != compute
    {
        context.warn(format!(
            "the base says bnb_4bit_compute_dtype: {}, and this stage says {field}, which computes in {}; {} decides",
            torch_name(quantization.compute_dtype).unwrap_or("another type"),
            torch_name(compute).unwrap_or("another type"),
            &field[..4],
        ));
    }
    Ok(())
}

fn load_samples(input: &'static str, folder: &Path, base: &ModelConfig, context: &Context) -> Result<Samples, Error> {
    let samples = Samples::load(folder)?;
    let (mut trained, mut longest) = (0, 0);
    for (row, sample) in samples.iter().enumerate() {
        let ids = sample.input_ids.iter().copied().map(i64::from);
        let labels = sample.labels.iter().filter(|label| **label != IGNORED).copied().map(i64::from);
        let known = |token: i64| usize::try_from(token).is_ok_and(|token| token < base.vocab_size);
        if let Some(token) = ids.chain(labels).find(|token| !known(*token)) {
            return Err(Error::Vocabulary { input, row, token, vocab_size: base.vocab_size });
        }
        trained += sample.trained();
        longest = longest.max(sample.len());
    }
    if trained == 0 {
        return Err(Error::NoLabels { input, samples: samples.len() });
    }
    if longest > base.max_position_embeddings {
        context.warn(format!(
            "`{input}` has a sample of {longest} tokens, and the base was made for {}",
            base.max_position_embeddings
        ));
    }
    Ok(samples)
}
