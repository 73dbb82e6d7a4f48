//! Writing the model: pieces of tensors drawn in parallel, each written where it belongs.

use std::sync::atomic::{AtomicU64, Ordering};

use pipe_hf::{
    ModelConfig, Parameter, Role, SafetensorsWriter, TensorSpec, WEIGHTS_FILE, copy_tokenizer_files, element_bytes,
    narrow,
};
use pipe_stage::{Context, Failure};
use rayon::prelude::*;

use crate::{
    Config, Normal,
    shape::{model_config, resolve},
    tokenizer::Tokens,
};

/// Elements that a thread draws at a time.
const PIECE_ELEMENTS: usize = 1 << 18;

/// Why a model cannot be made.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("config.vocab_size is {vocab_size}, the tokenizer has ids up to {last}")]
    Vocabulary { vocab_size: usize, last: u32 },
    #[error("`{tensor}` of shape {shape:?} is too large")]
    TooLarge { tensor: String, shape: Vec<usize> },
}

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let output = context.output();
    let tokenizer = context.optional_input("tokenizer");
    let tokens = tokenizer.map(Tokens::open).transpose()?;
    let model = model_config(&resolve(config, tokens.as_ref()), config.dtype)?;
    if let Some(tokens) = tokens
        && tokens.size as usize > model.vocab_size
    {
        let error = Error::Vocabulary { vocab_size: model.vocab_size, last: tokens.size - 1 };
        return Err(Failure::from(error).hint(format!("set config.vocab_size to {} or more", tokens.size)));
    }

    let parameters = model.parameters();
    let dtype = config.dtype.dtype();
    let specs = parameters.iter().map(|one| TensorSpec::new(&one.name, dtype, one.shape.clone())).collect();
    let (pieces, total) = cut(&parameters)?;
    let writer = SafetensorsWriter::create(&output.join(WEIGHTS_FILE), specs)?;
    let work = Work { config, context, model: &model, writer: &writer, done: AtomicU64::new(0), total };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.cpus().unwrap_or(0)).build();
    let pool = pool.map_err(Failure::environment)?;
    pool.install(|| pieces.par_iter().try_for_each(|piece| work.run(piece)))?;
    writer.finish()?;

    model.write(&output)?;
    if let Some(folder) = tokenizer {
        copy_tokenizer_files(folder, &output)?;
    }
    context.figure("parameters", total);
    context.figure("tensors", parameters.len());
    Ok(())
}

/// A part of a parameter, in elements.
struct Piece<'a> {
    parameter: &'a Parameter,
    first: usize,
    elements: usize,
}

/// The pieces of all parameters, and their elements together.
fn cut(parameters: &[Parameter]) -> Result<(Vec<Piece<'_>>, u64), Error> {
    let mut pieces = Vec::new();
    let mut total = 0_u64;
    for parameter in parameters {
        let elements = parameter.shape.iter().try_fold(1_usize, |product, side| product.checked_mul(*side));
        // Room for the number of bytes, too.
        let elements = elements
            .filter(|elements| *elements < usize::MAX / 64)
            .ok_or_else(|| Error::TooLarge { tensor: parameter.name.clone(), shape: parameter.shape.clone() })?;
        total = total.saturating_add(elements as u64);
        for first in (0..elements).step_by(PIECE_ELEMENTS) {
            pieces.push(Piece { parameter, first, elements: PIECE_ELEMENTS.min(elements - first) });
        }
    }
    Ok((pieces, total))
}

struct Work<'a> {
    config: &'a Config,
    context: &'a Context,
    model: &'a ModelConfig,
    writer: &'a SafetensorsWriter,
    done: AtomicU64,
    total: u64,
}

impl Work<'_> {
    fn run(&self, piece: &Piece<'_>) -> Result<(), Failure> {
        if self.context.cancelled() {
            return Err(Failure::cancelled());
        }
        let Piece { parameter, first, elements } = *piece;
        let values = match parameter.role {
            Role::Norm => vec![1.0; elements],
            Role::Bias => vec![0.0; elements],
            Role::Embedding | Role::Linear | Role::Head => self.draw(parameter, first, elements),
        };
        let dtype = self.config.dtype;
        let width = element_bytes(dtype.dtype()).unwrap_or(1);
        self.writer.write_range(
            &parameter.name,
            (first * width) as u64,
            &narrow(dtype.dtype(), &values).unwrap_or_default(),
        )?;
        let done = self.done.fetch_add(elements as u64, Ordering::Relaxed) + elements as u64;
        self.context.progress("parameters", done, Some(self.total));
        Ok(())
    }

    fn draw(&self, parameter: &Parameter, first: usize, elements: usize) -> Vec<f32> {
        let stream = Normal::new(self.config.seed, &parameter.name);
        let deviation = self.model.initializer_range;
        let padding = match (parameter.role, self.model.pad_token_id) {
            (Role::Embedding, Some(row)) => {
                let width = self.model.hidden_size;
                let start = row as usize * width;
                start..start + width
            }
            _ => 0..0,
        };
        let value = |index: usize| {
            if padding.contains(&index) { 0.0 } else { (stream.get(index as u64) * deviation) as f32 }
        };
        (first..first + elements).map(value).collect()
    }
}
