//! The model card: what a folder holds, how it was made, from what.

use std::fmt;

use pipe_hf::AdapterConfig;
use pipe_stage::Digest;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::{Config, Format};

/// All that the card says.
pub(crate) struct Card<'a> {
    pub(crate) format: Format,
    pub(crate) config: &'a Config,
    pub(crate) base_model: Option<&'a str>,
    /// Tables of this format.
    pub(crate) sections: Vec<Section>,
    pub(crate) training: Option<&'a Training>,
    pub(crate) reports: &'a [Report],
    /// Of the inputs, by name.
    pub(crate) digests: &'a [(&'static str, Digest)],
}

/// A table with a title.
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) rows: Rows,
}

/// The rows of a table.
#[derive(Default)]
pub(crate) struct Rows(Vec<(&'static str, String)>);

impl Rows {
    pub(crate) fn push(&mut self, name: &'static str, value: impl fmt::Display) {
        self.0.push((name, value.to_string()));
    }
}

/// The part of train's summary that the card shows.
#[derive(Deserialize)]
pub(crate) struct Training {
    updates: u64,
    samples: u64,
    tokens: u64,
    config: Map<String, Value>,
}

/// The part of evaluate's report that the card shows.
#[derive(Deserialize)]
pub(crate) struct Report {
    adapter: bool,
    samples: u64,
    tokens: u64,
    loss: f64,
    perplexity: f64,
}

/// What the card says of an adapter's settings.
pub(crate) fn adapter_rows(settings: &AdapterConfig) -> Rows {
    let or_none = |names: &[String]| {
        let mut names = names.to_vec();
        names.sort();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    };
    let mut rows = Rows::default();
    rows.push("r", settings.r);
    rows.push("lora_alpha", settings.lora_alpha);
    rows.push("use_rslora", settings.use_rslora);
    rows.push("scale", format_args!("{:.6}", settings.scale()));
    rows.push("lora_dropout", settings.lora_dropout);
    rows.push("target_modules", or_none(&settings.target_modules));
    rows.push("modules_to_save", or_none(&settings.modules_to_save));
    rows
}

impl fmt::Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.front_matter(f)?;
        writeln!(f, "# {}\n", self.title())?;
        writeln!(f, "{}, made by pipe {}.\n", self.what(), env!("CARGO_PKG_VERSION"))?;
        self.usage(f)?;
        for Section { title, rows } in &self.sections {
            writeln!(f, "## {title}\n\n| | |\n|---|---|")?;
            rows.0.iter().try_for_each(|(name, value)| row(f, name, value))?;
            writeln!(f)?;
        }
        self.training(f)?;
        self.evaluation(f)?;
        self.origin(f)
    }
}

impl Card<'_> {
    fn title(&self) -> String {
        let kind = if self.format.is_adapter() { "LoRA adapter" } else { "Fine-tuned model" };
        match (&self.config.title, self.base_model) {
            (Some(title), _) => title.clone(),
            (None, Some(base)) if self.format.is_adapter() => format!("{kind} for {base}"),
            (None, Some(base)) => format!("{kind} of {base}"),
            (None, None) => kind.to_owned(),
        }
    }

    fn what(&self) -> &'static str {
        match self.format {
            Format::Adapter => "A LoRA adapter in the format of PEFT",
            Format::Merged => "A model with its LoRA adapter merged in, in the format of Transformers",
            Format::Gguf => "A model with its LoRA adapter merged in, as a GGUF file for llama.cpp",
            Format::GgufAdapter => "A LoRA adapter as a GGUF file for llama.cpp",
            Format::Ollama => "A model with its LoRA adapter merged in, as a GGUF file with a Modelfile for Ollama",
            Format::Bnb4 => {
                "A model with its LoRA adapter merged in, quantised to 4 bits as bitsandbytes does it (NF4)"
            }
        }
    }

    /// The YAML that the hub reads. JSON strings are YAML strings.
    fn front_matter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---")?;
        if let Some(base) = self.base_model {
            writeln!(f, "base_model: {}", quoted(base))?;
        }
        let (library, tag, relation) = match self.format {
            Format::Adapter => ("peft", "lora", "adapter"),
            Format::Merged => ("transformers", "merged", "finetune"),
            Format::Gguf | Format::Ollama => ("gguf", "gguf", "quantized"),
            Format::GgufAdapter => ("gguf", "lora", "adapter"),
            Format::Bnb4 => ("transformers", "bitsandbytes", "quantized"),
        };
        writeln!(f, "library_name: {library}\npipeline_tag: text-generation")?;
        if let Some(license) = &self.config.license {
            writeln!(f, "license: {}", quoted(license))?;
        }
        if !self.config.language.is_empty() {
            writeln!(f, "language:")?;
            for code in &self.config.language {
                writeln!(f, "- {}", quoted(code))?;
            }
        }
        writeln!(f, "tags:\n- {tag}")?;
        if let Some(base) = self.base_model {
            writeln!(f, "- {}", quoted(&format!("base_model:{relation}:{base}")))?;
        }
        writeln!(f, "---\n")
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base_model.unwrap_or("BASE");
        match self.format {
            Format::Adapter => {
                writeln!(f, "## Use\n\n```python")?;
                writeln!(
                    f,
                    "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n"
                )?;
                writeln!(f, "base = AutoModelForCausalLM.from_pretrained({})", quoted(base))?;
                writeln!(f, "model = PeftModel.from_pretrained(base, \".\")  # this folder")?;
                writeln!(f, "tokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n")
            }
            Format::Merged | Format::Bnb4 => {
                writeln!(f, "## Use\n\n```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n")?;
                writeln!(f, "model = AutoModelForCausalLM.from_pretrained(\".\")  # this folder")?;
                writeln!(f, "tokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n")
            }
            Format::Gguf => writeln!(f, "## Use\n\n```sh\nllama-cli -m {}\n```\n", crate::gguf::FILE),
            Format::GgufAdapter => {
                writeln!(f, "## Use\n\n```sh\nllama-cli -m BASE.gguf --lora {}\n```\n", crate::gguf_adapter::FILE)
            }
            Format::Ollama => writeln!(f, "## Use\n\n```sh\nollama create NAME -f Modelfile\nollama run NAME\n```\n"),
        }
    }

    fn training(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(training) = self.training else { return Ok(()) };
        writeln!(f, "## Training\n\n| | |\n|---|---|")?;
        row(f, "updates", &training.updates)?;
        row(f, "samples", &training.samples)?;
        row(f, "tokens", &training.tokens)?;
        for (name, value) in &training.config {
            match value {
                // `lora` stands above, prompts are no setting, and a field left out says nothing.
                Value::Object(_) | Value::Array(_) | Value::Null => {}
                Value::String(text) => row(f, name, text)?,
                other => row(f, name, other)?,
            }
        }
        writeln!(f)
    }

    fn evaluation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.reports.is_empty() {
            return Ok(());
        }
        writeln!(f, "## Evaluation\n\nOn held-out samples.\n")?;
        writeln!(f, "| model | samples | tokens | loss | perplexity |\n|---|---|---|---|---|")?;
        for report in self.reports {
            let model = match (report.adapter, self.format.is_adapter()) {
                (false, _) => "base",
                (true, true) => "base with this adapter",
                (true, false) => "base with the adapter, before it was merged",
            };
            let Report { samples, tokens, loss, perplexity, .. } = report;
            writeln!(f, "| {model} | {samples} | {tokens} | {loss:.6} | {perplexity:.4} |")?;
        }
        writeln!(f)
    }

    fn origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Made from\n\nBLAKE3 digests of the artifacts in pipe's cache.\n\n| | |\n|---|---|")?;
        for (name, digest) in self.digests {
            row(f, name, &format_args!("`{digest}`"))?;
        }
        Ok(())
    }
}

fn row(f: &mut fmt::Formatter<'_>, name: &str, value: &dyn fmt::Display) -> fmt::Result {
    writeln!(f, "| {name} | {} |", value.to_string().replace('|', "\\|").replace('\n', " "))
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}
