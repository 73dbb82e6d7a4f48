//! The conversion: pieces of tensors in parallel, every row where transformers has it.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use pipe_gguf::{GgufReader, Layout, TokenizerFiles};
use pipe_hf::{
    ModelConfig, Parameter, SafetensorsWriter, TensorSpec, WEIGHTS_FILE, beyond_float16, element_bytes, narrow,
};
use pipe_merge::{Piece, piece_rows};
use pipe_stage::{Context, Failure};
use rayon::prelude::*;
use serde_json::Value;

use crate::Config;

/// Why a file cannot be imported.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} has no file that ends in .gguf", path.display())]
    NoFile { path: PathBuf },
    #[error("{} has several files that end in .gguf: {names}", path.display())]
    SeveralFiles { path: PathBuf, names: String },
    #[error("{}: tensor `{name}` has the shape {found:?}, its metadata say {expected:?}", path.display())]
    Shape { path: PathBuf, name: String, found: Vec<usize>, expected: Vec<usize> },
    #[error("{}: tensor `{name}` is no part of a {model_type} model as the metadata describe it", path.display())]
    UnknownTensor { path: PathBuf, name: String, model_type: &'static str },
    #[error("{}: tensor `{name}` holds {value}, which float16 cannot", path.display())]
    TooLarge { path: PathBuf, name: String, value: f32 },
}

pub(crate) fn run(config: &Config, context: &Context) -> Result<(), Failure> {
    let file = GgufReader::open(&find(config, context.input("model")?)?)?;
    let mut model = ModelConfig::from_object(file.path(), pipe_gguf::config_object(&file)?)?;
    let dtype = config.dtype.dtype();
    let layout = Layout::new(&model);
    let parameters = model.parameters();
    let named: Vec<(&Parameter, String)> = parameters
        .iter()
        .map(|parameter| (parameter, layout.gguf_name(&parameter.name).unwrap_or_else(|| parameter.name.clone())))
        .collect();
    check(&file, &model, &named)?;
    // Before the weights: a tokenizer that is not supported must not cost a conversion.
    let tokenizer = TokenizerFiles::from_gguf(&file)?;

    let output = context.output();
    let specs = parameters.iter().map(|one| TensorSpec::new(&one.name, dtype, one.shape.clone())).collect();
    let writer = SafetensorsWriter::create(&output.join(WEIGHTS_FILE), specs)?;
    let pieces: Vec<(&Parameter, &str, Piece)> = named
        .iter()
        .flat_map(|(parameter, name)| {
            piece_rows(&parameter.shape).into_iter().map(|piece| (*parameter, name.as_str(), piece))
        })
        .collect();
    let total: u64 = pieces.iter().map(|(.., piece)| piece.elements() as u64).sum();
    let work = Work { context, file: &file, writer: &writer, layout, dtype, done: AtomicU64::new(0), total };
    let pool = rayon::ThreadPoolBuilder::new().num_threads(context.cpus().unwrap_or(0)).build();
    let pool = pool.map_err(Failure::environment)?;
    pool.install(|| pieces.par_iter().try_for_each(|(parameter, name, piece)| work.run(parameter, name, *piece)))?;
    writer.finish()?;

    model.raw = model.dense_json(dtype);
    model.write(&output)?;
    tokenizer.write(&output)?;
    context.figure("parameters", total);
    context.figure("tensors", parameters.len());
    let text = |key: &str| file.metadata().get(key).and_then(pipe_gguf::Value::as_str).map(Value::from);
    if let Some(name) = text("general.name") {
        context.figure("name", name);
    }
    Ok(())
}

/// The file that is meant.
fn find(config: &Config, folder: &Path) -> Result<PathBuf, Failure> {
    if let Some(file) = &config.file {
        return Ok(folder.join(file));
    }
    let failed = |source| Error::Read { path: folder.to_owned(), source };
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name().to_string_lossy().into_owned();
        if name.ends_with(".gguf") {
            names.push(name);
        }
    }
    names.sort();
    match names.as_slice() {
        [name] => Ok(folder.join(name)),
        [] => Err(Error::NoFile { path: folder.to_owned() }.into()),
        _ => {
            let error = Error::SeveralFiles { path: folder.to_owned(), names: names.join(", ") };
            Err(Failure::from(error).hint("name one of them in the field `file`"))
        }
    }
}

/// Every parameter must be there in its shape, and nothing else.
fn check(file: &GgufReader, model: &ModelConfig, named: &[(&Parameter, String)]) -> Result<(), Failure> {
    let path = || file.path().to_owned();
    for (parameter, name) in named {
        let entry = file.entry(name)?;
        if entry.shape != parameter.shape {
            let (found, expected) = (entry.shape.clone(), parameter.shape.clone());
            return Err(Error::Shape { path: path(), name: name.clone(), found, expected }.into());
        }
    }
    match file.names().find(|name| !named.iter().any(|(_, known)| known == name)) {
        Some(name) => {
            let model_type = model.architecture.model_type();
            Err(Error::UnknownTensor { path: path(), name: name.to_owned(), model_type }.into())
        }
        None => Ok(()),
    }
}

struct Work<'a> {
    context: &'a Context,
    file: &'a GgufReader,
    writer: &'a SafetensorsWriter,
    layout: Layout,
    dtype: pipe_hf::Dtype,
    done: AtomicU64,
    total: u64,
}

impl Work<'_> {
    fn run(&self, parameter: &Parameter, name: &str, piece: Piece) -> Result<(), Failure> {
        if self.context.cancelled() {
            return Err(Failure::cancelled());
        }
        let mut values = vec![0.0; piece.elements()];
        if self.layout.keeps_rows(parameter) {
            self.file.read_f32_range(name, piece.first(), &mut values)?;
        } else {
            for (row, values) in values.chunks_exact_mut(piece.columns).enumerate() {
                let row = self.layout.gguf_row(parameter, piece.first_row + row);
                self.file.read_f32_range(name, row * piece.columns, values)?;
            }
        }
        if self.dtype == pipe_hf::Dtype::F16
            && let Some(value) = beyond_float16(&values)
        {
            let error = Error::TooLarge { path: self.file.path().to_owned(), name: name.to_owned(), value };
            return Err(Failure::from(error).hint("set `dtype: bf16` or fp32"));
        }
        let bytes = narrow(self.dtype, &values).unwrap_or_default();
        let width = element_bytes(self.dtype).unwrap_or(1);
        self.writer.write_range(&parameter.name, (piece.first() * width) as u64, &bytes)?;
        let done = self.done.fetch_add(piece.elements() as u64, Ordering::Relaxed) + piece.elements() as u64;
        self.context.progress("values", done, Some(self.total));
        Ok(())
    }
}
