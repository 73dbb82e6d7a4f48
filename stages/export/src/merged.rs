//! The format `merged`: a Hugging Face model with plain weights.

use std::path::Path;

use pipe_hf::{
    Checkpoint, Dtype, ModelConfig, Parameter, ShardedWriter, TensorSpec, beyond_float16, copy_side_files,
    element_bytes, narrow, widen,
};
use pipe_merge::{Merged, Piece};
use pipe_stage::Context;

use crate::{
    Error, Format,
    dialogue::Dialogue,
    generation,
    weights::{Sink, Written, WrittenTensor},
};

/// The weights that are being written.
struct MergedSink {
    writer: ShardedWriter,
    dtype: Dtype,
    folder: std::path::PathBuf,
}

/// Writes the small files, and declares the weights.
pub(crate) fn begin(
    merged: &Merged,
    model: &Path,
    dialogue: &Dialogue,
    dtype: Dtype,
    max_shard_bytes: u64,
    folder: &Path,
) -> Result<Box<dyn Sink>, Error> {
    let specs = merged.parameters().iter().map(|one| TensorSpec::new(&one.name, dtype, one.shape.clone())).collect();
    let writer = ShardedWriter::create(folder, specs, max_shard_bytes)?;
    copy_side_files(model, folder)?;
    generation::write(model, merged.config(), dialogue, folder)?;
    let config = ModelConfig { raw: merged.config().dense_json(dtype), ..merged.config().clone() };
    config.write(folder)?;
    Ok(Box::new(MergedSink { writer, dtype, folder: folder.to_owned() }))
}

/// Rounds to a type of plain weights.
pub(crate) fn round(dtype: Dtype, parameter: &Parameter, values: &[f32]) -> Result<Vec<u8>, Error> {
    if dtype == Dtype::F16
        && let Some(value) = beyond_float16(values)
    {
        return Err(Error::TooLarge { tensor: parameter.name.clone(), value });
    }
    Ok(narrow(dtype, values).unwrap_or_default())
}

impl Sink for MergedSink {
    fn put(&self, parameter: &Parameter, piece: Piece, values: &[f32]) -> Result<(), Error> {
        let bytes = round(self.dtype, parameter, values)?;
        let width = element_bytes(self.dtype).unwrap_or(1);
        Ok(self.writer.write_range(&parameter.name, (piece.first() * width) as u64, &bytes)?)
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Written>, Error> {
        self.writer.finish()?;
        let config = ModelConfig::open(&self.folder)?;
        let weights = Checkpoint::open(&self.folder)?;
        Ok(Box::new(MergedFiles { config, weights, dtype: self.dtype, folder: self.folder }))
    }
}

struct MergedFiles {
    config: ModelConfig,
    weights: Checkpoint,
    dtype: Dtype,
    folder: std::path::PathBuf,
}

impl Written for MergedFiles {
    fn format(&self) -> Format {
        Format::Merged
    }

    fn bound(&self) -> f64 {
        match self.dtype {
            Dtype::F32 => 0.0,
            Dtype::BF16 => 4e-3,
            // Weights below 6e-5 have fewer bits.
            _ => 1e-2,
        }
    }

    fn open<'a>(&'a self, parameter: &'a Parameter) -> Result<Box<dyn WrittenTensor + 'a>, Error> {
        Ok(Box::new(MergedTensor { files: self, parameter }))
    }

    fn check(&self, context: &Context) -> Result<(), Error> {
        self.weights.check(&self.config)?;
        let model = context.optional_input("model").unwrap_or(&self.folder);
        Dialogue::open(model)?.compare(&Dialogue::open(&self.folder)?, Format::Merged)
    }
}

struct MergedTensor<'a> {
    files: &'a MergedFiles,
    parameter: &'a Parameter,
}

impl WrittenTensor for MergedTensor<'_> {
    fn read(&self, piece: Piece, values: &mut [f32]) -> Result<(), Error> {
        Ok(self.files.weights.read_f32_range(&self.parameter.name, piece.first(), values)?)
    }

    fn meant(&self, values: &[f32]) -> Option<Vec<f32>> {
        let mut meant = vec![0.0; values.len()];
        widen(self.files.dtype, &narrow(self.files.dtype, values)?, &mut meant)?;
        Some(meant)
    }
}
