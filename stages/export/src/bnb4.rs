//! The format `bnb4`: the merged model, quantised to NF4 as `quantize` does it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use pipe_hf::{
    Dtype, ModelConfig, Parameter, QuantizationConfig, Role, SafetensorsWriter, TensorSpec, WEIGHTS_FILE,
    copy_side_files, element_bytes, narrow, widen,
};
use pipe_merge::{Merged, Piece, Tensor};
use pipe_nf4::{BLOCK, MAX_STATE_BYTES, PendingScales, SourceType, quantize_blocks, scale_tensors, suffix};
use pipe_stage::Context;
use serde_json::Value;

use crate::{
    Error, Format,
    dialogue::Dialogue,
    generation, merged,
    weights::{Sink, Written, WrittenTensor},
};

struct Bnb4Sink {
    writer: SafetensorsWriter,
    dtype: Dtype,
    double_quant: bool,
    folder: PathBuf,
    /// The parameters that are quantised, with the scales of their blocks.
    scales: BTreeMap<String, PendingScales>,
    states: Mutex<BTreeMap<String, Vec<u8>>>,
}

/// Writes the small files, and declares the weights. The settings are those that the model was quantised with; for one
/// that was not, double quantisation and products in the type of the weights.
pub(crate) fn begin(
    merged: &Merged,
    model: &Path,
    dialogue: &Dialogue,
    dtype: Dtype,
    folder: &Path,
) -> Result<Box<dyn Sink>, Error> {
    let settings = ModelConfig::open(model)?.quantization.unwrap_or(QuantizationConfig {
        compute_dtype: dtype,
        double_quant: true,
        skip_modules: None,
    });
    let (mut specs, mut late, mut scales) = (Vec::new(), Vec::new(), BTreeMap::new());
    for Parameter { name, shape, role } in merged.parameters() {
        let module = name.strip_suffix(".weight").unwrap_or(name);
        if *role != Role::Linear || settings.skips(module) {
            specs.push(TensorSpec::new(name, dtype, shape.clone()));
            continue;
        }
        for part in pipe_nf4::parts(shape.iter().product(), settings.double_quant) {
            let dtype = if part.float { Dtype::F32 } else { Dtype::U8 };
            specs.push(TensorSpec::new(format!("{name}{}", part.suffix), dtype, part.shape));
        }
        late.push((format!("{name}{}", suffix::QUANT_STATE), MAX_STATE_BYTES));
        scales.insert(name.clone(), PendingScales::default());
    }
    let writer = SafetensorsWriter::create_with_late(&folder.join(WEIGHTS_FILE), specs, late)?;
    copy_side_files(model, folder)?;
    generation::write(model, merged.config(), dialogue, folder)?;
    let mut raw = merged.config().dense_json(dtype);
    raw.insert("quantization_config".to_owned(), Value::Object(settings.to_json()));
    ModelConfig { raw, ..merged.config().clone() }.write(folder)?;
    let (double_quant, folder) = (settings.double_quant, folder.to_owned());
    Ok(Box::new(Bnb4Sink { writer, dtype, double_quant, folder, scales, states: Mutex::default() }))
}

impl Bnb4Sink {
    /// bitsandbytes quantises a tensor that has a type: the sum is rounded to it first.
    fn quantise(
        &self,
        parameter: &Parameter,
        piece: Piece,
        rounded: &[u8],
        scales: &PendingScales,
    ) -> Result<(), Error> {
        let (name, elements) = (&parameter.name, parameter.shape.iter().product::<usize>());
        let mut values = vec![0.0; piece.elements()];
        widen(self.dtype, rounded, &mut values);
        let mut packed = vec![0; values.len().div_ceil(2)];
        let mut absmax = vec![0.0; values.len().div_ceil(BLOCK)];
        quantize_blocks(&values, &mut packed, &mut absmax);
        self.writer.write_range(name, (piece.first() / 2) as u64, &packed)?;
        match scales.add(elements, piece.first() / BLOCK, &absmax) {
            Some(absmax) => self.write_scales(parameter, &absmax),
            None => Ok(()),
        }
    }

    fn write_scales(&self, parameter: &Parameter, absmax: &[f32]) -> Result<(), Error> {
        let source = match self.dtype {
            Dtype::F32 => SourceType::Float32,
            Dtype::F16 => SourceType::Float16,
            _ => SourceType::Bfloat16,
        };
        let (tensors, state) = scale_tensors(absmax, source, &parameter.shape, self.double_quant);
        for (suffix, bytes) in tensors {
            self.writer.write(&format!("{}{suffix}", parameter.name), &bytes)?;
        }
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.insert(format!("{}{}", parameter.name, suffix::QUANT_STATE), state.to_json().into_bytes());
        Ok(())
    }
}

impl Sink for Bnb4Sink {
    fn put(&self, parameter: &Parameter, piece: Piece, values: &[f32]) -> Result<(), Error> {
        let rounded = merged::round(self.dtype, parameter, values)?;
        match self.scales.get(&parameter.name) {
            Some(scales) => self.quantise(parameter, piece, &rounded, scales),
            None => {
                let width = element_bytes(self.dtype).unwrap_or(1);
                Ok(self.writer.write_range(&parameter.name, (piece.first() * width) as u64, &rounded)?)
            }
        }
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Written>, Error> {
        let states = self.states.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.writer.finish_with_late(&states)?;
        let model = Merged::open(&self.folder, None, None, None)?;
        Ok(Box::new(Bnb4Files { model, dtype: self.dtype, folder: self.folder }))
    }
}

struct Bnb4Files {
    model: Merged,
    dtype: Dtype,
    folder: PathBuf,
}

impl Written for Bnb4Files {
    fn format(&self) -> Format {
        Format::Bnb4
    }

    fn bound(&self) -> f64 {
        0.15
    }

    fn open<'a>(&'a self, parameter: &'a Parameter) -> Result<Box<dyn WrittenTensor + 'a>, Error> {
        Ok(Box::new(Bnb4Tensor { tensor: self.model.tensor(&parameter.name)?, dtype: self.dtype }))
    }

    fn check(&self, context: &Context) -> Result<(), Error> {
        let model = context.optional_input("model").unwrap_or(&self.folder);
        Dialogue::open(model)?.compare(&Dialogue::open(&self.folder)?, Format::Bnb4)
    }
}

struct Bnb4Tensor<'a> {
    tensor: Tensor<'a>,
    dtype: Dtype,
}

impl WrittenTensor for Bnb4Tensor<'_> {
    fn read(&self, piece: Piece, values: &mut [f32]) -> Result<(), Error> {
        Ok(self.tensor.read_base_rows(piece.first_row, values)?)
    }

    /// A quantised value depends on the scales of the whole tensor.
    fn meant(&self, values: &[f32]) -> Option<Vec<f32>> {
        if self.tensor.is_quantised() {
            return None;
        }
        let mut meant = vec![0.0; values.len()];
        widen(self.dtype, &narrow(self.dtype, values)?, &mut meant)?;
        Some(meant)
    }
}
