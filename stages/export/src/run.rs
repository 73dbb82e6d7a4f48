//! The work of an `export` stage.

use std::path::{Path, PathBuf};

use pipe_gguf::TensorType;
use pipe_hf::{Dtype, ModelConfig};
use pipe_merge::Merged;
use pipe_stage::{Context, Digest, Failure, Stage};

use crate::{
    Config, Error, Export, Format, MergeInto, adapter, bnb4,
    card::{Card, Report, Rows, Section, Training},
    check,
    dialogue::Dialogue,
    files::{create_folder, read, read_optional, write},
    gguf::{self, Wanted},
    gguf_adapter, merged, modelfile,
    weights::{self, Sink},
};

/// What `train` says about a run, beside its adapter.
const TRAINING_FILE: &str = "training.json";
/// What `evaluate` writes.
const REPORT_FILE: &str = "report.json";
const CARD_FILE: &str = "README.md";

impl Stage for Export {
    fn run(config: &Config, context: &Context) -> Result<(), Failure> {
        let model = context.input("model")?;
        let digests: Vec<(&str, Digest)> = ["adapter", "model", "original"]
            .into_iter()
            .filter_map(|name| Some((name, context.job().inputs.get(name)?.first()?.digest)))
            .collect();
        let export = ExportRun { config, context, model, adapter: context.optional_input("adapter") };
        match export.run(&digests) {
            Ok(()) => Ok(()),
            Err(Error::Cancelled) => Err(Failure::cancelled()),
            Err(error) => {
                let hint = error.hint();
                let failure = Failure::from(error);
                Err(match hint {
                    Some(hint) => failure.hint(hint),
                    None => failure,
                })
            }
        }
    }
}

struct ExportRun<'a> {
    config: &'a Config,
    context: &'a Context,
    model: &'a Path,
    adapter: Option<&'a Path>,
}

impl ExportRun<'_> {
    fn run(&self, digests: &[(&'static str, Digest)]) -> Result<(), Error> {
        let reports: Vec<Report> = self
            .context
            .inputs("evaluation")
            .map(|folder| read::<Report>(&folder.join(REPORT_FILE), "a report of evaluate"))
            .collect::<Result<_, _>>()?;
        let training = match self.adapter {
            Some(adapter) => read_optional::<Training>(&adapter.join(TRAINING_FILE), "a training summary of train")?,
            None => None,
        };
        let base_model = adapter::base_model(self.config, self.adapter, self.context)?;
        let mut sections: Vec<(Format, Vec<Section>)> = Vec::new();
        for format in self.config.format.iter() {
            create_folder(&self.folder(format))?;
            if let (Format::Adapter, Some(adapter)) = (format, self.adapter) {
                let folder = self.folder(format);
                let said = adapter::pack(adapter, self.model, base_model.as_deref(), &folder, self.context)?;
                sections.push((format, said));
            }
        }
        if self.config.format.iter().any(|format| format != Format::Adapter) {
            sections.extend(self.convert(base_model.as_deref())?);
        }
        for (format, sections) in sections {
            let card = Card {
                format,
                config: self.config,
                base_model: base_model.as_deref(),
                sections,
                training: training.as_ref(),
                reports: &reports,
                digests,
            };
            write(&self.folder(format).join(CARD_FILE), card.to_string().as_bytes())?;
        }
        Ok(())
    }

    /// All formats that compute something.
    fn convert(&self, base_model: Option<&str>) -> Result<Vec<(Format, Vec<Section>)>, Error> {
        let into = self.config.merge_into.map(|into| match into {
            MergeInto::Original => pipe_merge::MergeInto::Original,
            MergeInto::Dequantized => pipe_merge::MergeInto::Dequantized,
        });
        let original = self.context.optional_input("original");
        let merged = Merged::open(self.model, original, self.adapter, into)?;
        let dtype = self.dtype(&merged)?;
        let gguf_type = self.config.gguf_type.map_or(plain_type(dtype), |chosen| chosen.tensor_type());
        let dialogue = Dialogue::open(self.model)?;
        let name = self.config.title.as_deref().or(base_model).unwrap_or("model");
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        let mut sections = Vec::new();
        for format in self.config.format.iter() {
            let folder = self.folder(format);
            let wanted = Wanted { format, tensor_type: gguf_type, name };
            match format {
                Format::Adapter => {}
                Format::GgufAdapter => {
                    // An adapter is small: what is not asked for otherwise stays as it was trained.
                    let kind = self.config.gguf_type.map_or(TensorType::F32, |chosen| chosen.tensor_type());
                    let kind = if kind.block() > 1 { TensorType::F32 } else { kind };
                    let said = gguf_adapter::write(&merged, name, kind, &folder, self.config.check)?;
                    sections.push((format, said));
                }
                Format::Merged => {
                    let most = self.config.max_shard_size.bytes();
                    sinks.push(merged::begin(&merged, self.model, &dialogue, dtype, most, &folder)?);
                }
                Format::Gguf => {
                    sinks.push(gguf::begin(&merged, self.model, &dialogue, &wanted, &folder, self.context)?);
                }
                Format::Ollama => {
                    modelfile::write(self.model, merged.config(), &dialogue, &folder, self.context)?;
                    sinks.push(gguf::begin(&merged, self.model, &dialogue, &wanted, &folder, self.context)?);
                }
                Format::Bnb4 => sinks.push(bnb4::begin(&merged, self.model, &dialogue, dtype, &folder)?),
            }
        }
        if !sinks.is_empty() {
            let described = self.describe(&merged, dtype, gguf_type);
            sections.extend(self.stream(&merged, sinks, described)?);
        }
        Ok(sections)
    }

    fn stream(
        &self,
        merged: &Merged,
        sinks: Vec<Box<dyn Sink>>,
        described: impl Fn(Format) -> Section,
    ) -> Result<Vec<(Format, Vec<Section>)>, Error> {
        weights::write(merged, &sinks, self.context)?;
        let written: Vec<_> = sinks.into_iter().map(Sink::finish).collect::<Result<_, _>>()?;
        self.context.figure("parameters", weights::count(merged.parameters()));
        let mut sections: Vec<_> = written.iter().map(|file| (file.format(), vec![described(file.format())])).collect();
        if self.config.check {
            for (finding, (_, sections)) in check::check(merged, &written, self.context)?.iter().zip(&mut sections) {
                self.context.figure(&format!("{}_rounding", finding.format.name()), finding.rounding);
                sections.push(Section { title: "Check", rows: finding.rows() });
            }
        }
        Ok(sections)
    }

    /// What the card says of merged weights.
    fn describe(&self, merged: &Merged, dtype: Dtype, gguf_type: TensorType) -> impl Fn(Format) -> Section {
        let into = match merged.into_weights() {
            pipe_merge::MergeInto::Original => "the weights before quantisation",
            pipe_merge::MergeInto::Dequantized => "the dequantised NF4 weights that were trained on",
        };
        let quantised = ModelConfig::open(self.model).is_ok_and(|model| model.quantization.is_some());
        let adapter = merged.adapter().map(|adapter| adapter.settings.clone());
        let tied = merged.config().tie_word_embeddings;
        let parameters = weights::count(merged.parameters());
        move |format| {
            let mut rows = match &adapter {
                Some(settings) => crate::card::adapter_rows(settings),
                None => Rows::default(),
            };
            if quantised {
                rows.push("merged into", into);
            }
            match format {
                Format::Gguf | Format::Ollama => rows.push("type of matrices", gguf_type.name()),
                _ => rows.push("type of weights", pipe_hf::torch_name(dtype).unwrap_or("unknown")),
            }
            rows.push("tie_word_embeddings", tied);
            rows.push("parameters", parameters);
            Section { title: "Model", rows }
        }
    }

    /// Where a format stands in the artifact.
    fn folder(&self, format: Format) -> PathBuf {
        let output = self.context.output();
        if self.config.format.is_single() { output } else { output.join(format.name()) }
    }

    /// The type of merged weights: the configured, or that of the model's own embedding, which no format quantises.
    fn dtype(&self, merged: &Merged) -> Result<Dtype, Error> {
        match self.config.dtype {
            Some(dtype) => Ok(dtype.dtype()),
            None => Ok(merged.base().info("model.embed_tokens.weight")?.dtype),
        }
    }
}

/// The type of a GGUF file for weights of a type.
fn plain_type(dtype: Dtype) -> TensorType {
    match dtype {
        Dtype::F32 => TensorType::F32,
        Dtype::F16 => TensorType::F16,
        _ => TensorType::Bf16,
    }
}
