//! The format `gguf`: the merged model as one file for llama.cpp.

use std::path::{Path, PathBuf};

use pipe_gguf::{
    GgufReader, GgufTensor, GgufWriter, Layout, TensorType, TokenizerFiles, model_metadata, vocabulary_metadata,
};
use pipe_hf::{ModelConfig, Parameter, Role, beyond_float16};
use pipe_merge::{Merged, Piece};
use pipe_stage::Context;

use crate::{
    Error, Format,
    dialogue::Dialogue,
    files::create_folder,
    weights::{Sink, Written, WrittenTensor, count},
};

/// The file of a folder.
pub(crate) const FILE: &str = "model.gguf";

/// How a model is laid out in a file.
struct Plan {
    layout: Layout,
    tensor_type: TensorType,
    format: Format,
    path: PathBuf,
}

impl Plan {
    fn name(&self, parameter: &Parameter) -> String {
        self.layout.gguf_name(&parameter.name).unwrap_or_else(|| parameter.name.clone())
    }

    /// Vectors are float32, as llama.cpp wants them. Rows that are no whole blocks are float16. Where matrices have 4 bits,
    /// embedding and head have 8: an error there reaches every token.
    fn tensor_type(&self, parameter: &Parameter) -> TensorType {
        let table = matches!(parameter.role, Role::Embedding | Role::Head);
        let wanted = match self.tensor_type {
            TensorType::Q4_0 if table => TensorType::Q8_0,
            other => other,
        };
        match parameter.shape.as_slice() {
            [_, columns] if columns.is_multiple_of(wanted.block()) => wanted,
            [_, _] => TensorType::F16,
            _ => TensorType::F32,
        }
    }
}

struct GgufSink {
    plan: Plan,
    writer: GgufWriter,
}

/// What a file is called and how it is stored.
pub(crate) struct Wanted<'a> {
    pub(crate) format: Format,
    pub(crate) tensor_type: TensorType,
    /// `general.name`
    pub(crate) name: &'a str,
}

/// Writes the metadata, and declares the weights.
pub(crate) fn begin(
    merged: &Merged,
    model: &Path,
    dialogue: &Dialogue,
    wanted: &Wanted<'_>,
    folder: &Path,
    context: &Context,
) -> Result<Box<dyn Sink>, Error> {
    let config = merged.config();
    let path = folder.join(FILE);
    let plan = Plan { layout: Layout::new(config), tensor_type: wanted.tensor_type, format: wanted.format, path };
    let mut metadata = model_metadata(config, wanted.name, count(merged.parameters()), wanted.tensor_type);
    if dialogue.tokenizer.is_some() {
        metadata.extend(vocabulary_metadata(model, config, dialogue.turn_end())?);
    } else {
        context.warn(
            "the input `model` has no tokenizer.json, so the GGUF file has no tokenizer and takes only token ids",
        );
        metadata.set("tokenizer.ggml.model", "no_vocab");
    }
    let declared = |parameter: &Parameter| GgufTensor {
        name: plan.name(parameter),
        tensor_type: plan.tensor_type(parameter),
        shape: parameter.shape.clone(),
    };
    let tensors: Vec<GgufTensor> = merged.parameters().iter().map(declared).collect();
    let odd = merged.parameters().iter().zip(&tensors).filter(|(parameter, tensor)| {
        parameter.shape.len() == 2 && tensor.tensor_type == TensorType::F16 && wanted.tensor_type != TensorType::F16
    });
    let odd = odd.count();
    if odd > 0 {
        context.warn(format!(
            "{odd} matrices have rows that are no whole blocks of {}, so they are stored as F16",
            wanted.tensor_type.name()
        ));
    }
    let writer = GgufWriter::create(&plan.path, &metadata, &tensors)?;
    Ok(Box::new(GgufSink { plan, writer }))
}

impl Sink for GgufSink {
    fn put(&self, parameter: &Parameter, piece: Piece, values: &[f32]) -> Result<(), Error> {
        let (name, tensor_type) = (self.plan.name(parameter), self.plan.tensor_type(parameter));
        if tensor_type == TensorType::F16
            && let Some(value) = beyond_float16(values)
        {
            return Err(Error::TooLarge { tensor: parameter.name.clone(), value });
        }
        let row_bytes = tensor_type.bytes(piece.columns).unwrap_or(0);
        let put = |row: usize, values: &[f32]| {
            let bytes = tensor_type.encode(values).unwrap_or_default();
            self.writer.write_range(&name, (row * row_bytes) as u64, &bytes)
        };
        if self.plan.layout.keeps_rows(parameter) {
            put(piece.first_row, values)?;
        } else {
            for (row, values) in values.chunks_exact(piece.columns).enumerate() {
                put(self.plan.layout.gguf_row(parameter, piece.first_row + row), values)?;
            }
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Box<dyn Written>, Error> {
        self.writer.finish()?;
        let reader = GgufReader::open(&self.plan.path)?;
        Ok(Box::new(GgufFile { reader, plan: self.plan }))
    }
}

struct GgufFile {
    reader: GgufReader,
    plan: Plan,
}

impl Written for GgufFile {
    fn format(&self) -> Format {
        self.plan.format
    }

    fn bound(&self) -> f64 {
        match self.plan.tensor_type {
            TensorType::F32 => 0.0,
            TensorType::Bf16 => 4e-3,
            TensorType::Q4_0 => 0.15,
            // Q8_0, and F16 with its small weights.
            _ => 1e-2,
        }
    }

    fn open<'a>(&'a self, parameter: &'a Parameter) -> Result<Box<dyn WrittenTensor + 'a>, Error> {
        let name = self.plan.name(parameter);
        let entry = self.reader.entry(&name)?;
        if entry.shape != parameter.shape {
            let problem = format!("`{name}` has the shape {:?}, it should be {:?}", entry.shape, parameter.shape);
            return Err(Error::Check { format: self.plan.format.name(), problem });
        }
        Ok(Box::new(GgufRows { file: self, parameter, name }))
    }

    /// Configuration and tokenizer, as somebody reads them who has only the file.
    fn check(&self, context: &Context) -> Result<(), Error> {
        let failed = |problem: String| Error::Check { format: self.plan.format.name(), problem };
        let model = context.input("model").map_err(|failure| failed(failure.chain().join(": ")))?;
        let expected = ModelConfig::open(model)?;
        let found = ModelConfig::from_object(self.reader.path(), pipe_gguf::config_object(&self.reader)?)?;
        let shape = |config: &ModelConfig| {
            let ModelConfig { architecture, vocab_size, head_dim, num_attention_heads, num_key_value_heads, .. } =
                config;
            let floats = [config.rope_theta as f32, config.rms_norm_eps as f32];
            let counts = [*vocab_size, *head_dim, *num_attention_heads, *num_key_value_heads, config.hidden_size];
            (*architecture, counts, floats, config.intermediate_size, config.max_position_embeddings)
        };
        if shape(&expected) != shape(&found) {
            return Err(failed(format!(
                "the metadata say {:?}, they should say {:?}",
                shape(&found),
                shape(&expected)
            )));
        }
        let dialogue = Dialogue::open(model)?;
        if dialogue.tokenizer.is_none() {
            return Ok(());
        }
        let folder = context.work().join(format!("{}-tokenizer", self.plan.format.name()));
        create_folder(&folder)?;
        TokenizerFiles::from_gguf(&self.reader)?.write(&folder)?;
        dialogue.compare(&Dialogue::open(&folder)?, self.plan.format)
    }
}

struct GgufRows<'a> {
    file: &'a GgufFile,
    parameter: &'a Parameter,
    name: String,
}

impl WrittenTensor for GgufRows<'_> {
    fn read(&self, piece: Piece, values: &mut [f32]) -> Result<(), Error> {
        let (file, columns) = (self.file, piece.columns);
        if file.plan.layout.keeps_rows(self.parameter) {
            return Ok(file.reader.read_f32_range(&self.name, piece.first(), values)?);
        }
        for (row, values) in values.chunks_exact_mut(columns).enumerate() {
            let row = file.plan.layout.gguf_row(self.parameter, piece.first_row + row);
            file.reader.read_f32_range(&self.name, row * columns, values)?;
        }
        Ok(())
    }

    fn meant(&self, values: &[f32]) -> Option<Vec<f32>> {
        let tensor_type = self.file.plan.tensor_type(self.parameter);
        let mut meant = vec![0.0; values.len()];
        tensor_type.decode(&tensor_type.encode(values)?, &mut meant)?;
        Some(meant)
    }
}
