//! The conversion: tensors in pieces, pieces in parallel, every piece written where it belongs.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use pipe_hf::{
    Checkpoint, Dtype, ModelConfig, QuantizationConfig, Role, SafetensorsWriter, TensorSpec, WEIGHTS_FILE,
    copy_side_files,
};
use pipe_nf4::{BLOCK, MAX_STATE_BYTES, PendingScales, SourceType, quantize_blocks, scale_tensors, suffix};
use pipe_stage::{Context, Failure};
use rayon::prelude::*;
use serde_json::Value;

use crate::Config;

/// Elements that a thread works on at a time, a whole number of blocks: some 2 MiB with all that belongs to them, so that
/// a hundred threads stay small too.
const PIECE_ELEMENTS: usize = 1 << 18;
/// Bytes of an unquantised tensor that are copied at a time.
const PIECE_BYTES: u64 = 1 << 20;

/// Why a model cannot be quantised.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{} is quantized already", path.display())]
    AlreadyQuantized { path: PathBuf },
    #[error("`{tensor}` is no part of a {model_type} model as config.json describes it")]
    UnknownTensor { tensor: String, model_type: &'static str },
    #[error("`{tensor}` holds {found} elements; bf16, fp16 and fp32 can be quantized")]
    ElementType { tensor: String, found: Dtype },
    #[error("`{tensor}` holds NaN or infinity among its elements {start} to {end}, which cannot be quantized", end = start + BLOCK - 1)]
    NotFinite { tensor: String, start: usize },
}

/// A tensor to quantise.
struct Linear {
    name: String,
    shape: Vec<usize>,
    elements: usize,
    source: SourceType,
    scales: PendingScales,
}

/// What a thread does at a time.
enum Piece<'a> {
    Quantize { linear: &'a Linear, first: usize, elements: usize },
    Copy { name: &'a str, offset: u64, bytes: u64 },
}

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let folder = context.input("model")?;
    let mut model = ModelConfig::open(folder)?;
    if model.quantization.is_some() {
        let error = Error::AlreadyQuantized { path: folder.to_owned() };
        return Err(Failure::from(error).hint("train takes it as it is: name it as the base"));
    }
    let checkpoint = Checkpoint::open(folder)?;
    checkpoint.check(&model)?;
    let (linears, copied) = sort_out(&model, &checkpoint)?;
    let output = context.output();
    let (declared, late) = declare(&linears, &copied, &checkpoint, config.bnb_4bit_use_double_quant)?;
    let writer = SafetensorsWriter::create_with_late(&output.join(WEIGHTS_FILE), declared, late)?;

    let work = Work {
        context,
        checkpoint: &checkpoint,
        writer: &writer,
        double_quant: config.bnb_4bit_use_double_quant,
        bytes_total: linears.iter().map(Linear::bytes).sum::<u64>() + sizes(&copied, &checkpoint)?,
        bytes_done: AtomicU64::new(0),
        states: Mutex::default(),
    };
    let pieces = cut(&linears, &copied, &checkpoint)?;
    with_threads(context.cpus(), || pieces.par_iter().try_for_each(|piece| work.run(piece)))??;
    let states = work.states.into_inner().unwrap_or_else(PoisonError::into_inner);
    writer.finish_with_late(&states)?;

    let quantization = QuantizationConfig {
        compute_dtype: config.bnb_4bit_compute_dtype.dtype(),
        double_quant: config.bnb_4bit_use_double_quant,
        skip_modules: None,
    };
    model.raw.insert("quantization_config".to_owned(), Value::Object(quantization.to_json()));
    model.write(&output)?;
    copy_side_files(folder, &output)?;

    context.figure("tensors_quantized", linears.len());
    context.figure("bytes_before", checkpoint.total_bytes());
    context.figure("bytes_after", Checkpoint::open(&output)?.total_bytes());
    Ok(())
}

/// Which tensors are quantised and which pass through. A copy of a tied head is left out; anything that is no parameter
/// of the model is an error.
fn sort_out(model: &ModelConfig, checkpoint: &Checkpoint) -> Result<(Vec<Linear>, Vec<String>), Failure> {
    let roles: BTreeMap<String, Role> = model.parameters().into_iter().map(|one| (one.name, one.role)).collect();
    let (mut linears, mut copied) = (Vec::new(), Vec::new());
    for name in checkpoint.names() {
        match roles.get(name) {
            Some(Role::Linear) => linears.push(linear(name, checkpoint)?),
            Some(_) => copied.push(name.to_owned()),
            None if name == "lm_head.weight" && model.tie_word_embeddings => {}
            // Tables that old versions of transformers stored; readers compute them.
            None if name.ends_with(".rotary_emb.inv_freq") => {}
            None => {
                let model_type = model.architecture.model_type();
                return Err(Error::UnknownTensor { tensor: name.to_owned(), model_type }.into());
            }
        }
    }
    Ok((linears, copied))
}

fn linear(name: &str, checkpoint: &Checkpoint) -> Result<Linear, Failure> {
    let info = checkpoint.info(name)?;
    let source = match info.dtype {
        Dtype::F32 => SourceType::Float32,
        Dtype::BF16 => SourceType::Bfloat16,
        Dtype::F16 => SourceType::Float16,
        found => return Err(Error::ElementType { tensor: name.to_owned(), found }.into()),
    };
    let elements = info.elements();
    Ok(Linear { name: name.to_owned(), shape: info.shape.clone(), elements, source, scales: PendingScales::default() })
}

impl Linear {
    fn part(&self, suffix: &str) -> String {
        format!("{}{suffix}", self.name)
    }

    /// The size before, bytes.
    fn bytes(&self) -> u64 {
        let width = if self.source == SourceType::Float32 { 4 } else { 2 };
        self.elements as u64 * width
    }
}

fn sizes(names: &[String], checkpoint: &Checkpoint) -> Result<u64, Failure> {
    names.iter().try_fold(0, |sum, name| Ok(sum + checkpoint.info(name)?.length_bytes))
}

type Declared = (Vec<TensorSpec>, Vec<(String, usize)>);

fn declare(
    linears: &[Linear],
    copied: &[String],
    checkpoint: &Checkpoint,
    double_quant: bool,
) -> Result<Declared, Failure> {
    let mut specs = Vec::new();
    for linear in linears {
        for part in pipe_nf4::parts(linear.elements, double_quant) {
            let dtype = if part.float { Dtype::F32 } else { Dtype::U8 };
            specs.push(TensorSpec::new(linear.part(part.suffix), dtype, part.shape));
        }
    }
    for name in copied {
        let info = checkpoint.info(name)?;
        specs.push(TensorSpec::new(name, info.dtype, info.shape.clone()));
    }
    let late = linears.iter().map(|linear| (linear.part(suffix::QUANT_STATE), MAX_STATE_BYTES));
    Ok((specs, late.collect()))
}

fn cut<'a>(linears: &'a [Linear], copied: &'a [String], checkpoint: &Checkpoint) -> Result<Vec<Piece<'a>>, Failure> {
    let mut pieces = Vec::new();
    for linear in linears {
        for first in (0..linear.elements).step_by(PIECE_ELEMENTS) {
            let elements = PIECE_ELEMENTS.min(linear.elements - first);
            pieces.push(Piece::Quantize { linear, first, elements });
        }
    }
    for name in copied {
        let length = checkpoint.info(name)?.length_bytes;
        let mut offset = 0;
        while offset < length {
            let bytes = PIECE_BYTES.min(length - offset);
            pieces.push(Piece::Copy { name, offset, bytes });
            offset += bytes;
        }
    }
    Ok(pieces)
}

/// What the threads share.
struct Work<'a> {
    context: &'a Context,
    checkpoint: &'a Checkpoint,
    writer: &'a SafetensorsWriter,
    double_quant: bool,
    bytes_total: u64,
    bytes_done: AtomicU64,
    /// The states of the tensors that are done, by the names that they are stored under.
    states: Mutex<BTreeMap<String, Vec<u8>>>,
}

impl Work<'_> {
    fn run(&self, piece: &Piece<'_>) -> Result<(), Failure> {
        if self.context.cancelled() {
            return Err(Failure::cancelled());
        }
        let bytes = match *piece {
            Piece::Quantize { linear, first, elements } => self.quantize(linear, first, elements)?,
            Piece::Copy { name, offset, bytes } => self.copy(name, offset, bytes)?,
        };
        let done = self.bytes_done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        self.context.progress("bytes", done, Some(self.bytes_total));
        Ok(())
    }

    fn quantize(&self, linear: &Linear, first: usize, elements: usize) -> Result<u64, Failure> {
        let mut values = vec![0.0; elements];
        self.checkpoint.read_f32_range(&linear.name, first, &mut values)?;
        let mut packed = vec![0; elements.div_ceil(2)];
        let mut absmax = vec![0.0; elements.div_ceil(BLOCK)];
        quantize_blocks(&values, &mut packed, &mut absmax);
        if let Some(block) = absmax.iter().position(|scale| !scale.is_finite()) {
            let start = first + block * BLOCK;
            return Err(Error::NotFinite { tensor: linear.name.clone(), start }.into());
        }
        self.writer.write_range(&linear.name, (first / 2) as u64, &packed)?;

        if let Some(absmax) = linear.scales.add(linear.elements, first / BLOCK, &absmax) {
            self.finish(linear, &absmax)?;
        }
        Ok(linear.bytes() / linear.elements as u64 * elements as u64)
    }

    /// Writes scales and code books of a tensor, and keeps its state.
    fn finish(&self, linear: &Linear, absmax: &[f32]) -> Result<(), Failure> {
        let (tensors, state) = scale_tensors(absmax, linear.source, &linear.shape, self.double_quant);
        for (suffix, bytes) in tensors {
            self.writer.write(&linear.part(suffix), &bytes)?;
        }
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(linear.part(suffix::QUANT_STATE), state.to_json().into_bytes());
        Ok(())
    }

    fn copy(&self, name: &str, offset: u64, bytes: u64) -> Result<u64, Failure> {
        // At most PIECE_BYTES.
        let mut buffer = vec![0; bytes as usize];
        self.checkpoint.read_range(name, offset, &mut buffer)?;
        self.writer.write_range(name, offset, &buffer)?;
        Ok(bytes)
    }
}

/// Runs `work` on `threads` threads, or on as many as there are cores.
fn with_threads<T: Send>(threads: Option<usize>, work: impl FnOnce() -> T + Send) -> Result<T, Failure> {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.unwrap_or(0)).build();
    pool.map(|pool| pool.install(work)).map_err(Failure::environment)
}
