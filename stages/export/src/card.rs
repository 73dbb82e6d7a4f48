//! The model card: what the adapter is, how it was made, from what.

use std::fmt;

use pipe_hf::AdapterConfig;
use pipe_stage::Digest;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Config;

/// All that the card says.
pub(crate) struct Card<'a> {
    pub(crate) config: &'a Config,
    pub(crate) base_model: Option<&'a str>,
    pub(crate) settings: &'a AdapterConfig,
    pub(crate) weights: Weights,
    pub(crate) training: Option<Training>,
    pub(crate) reports: Vec<Report>,
    /// Of the inputs, by name.
    pub(crate) digests: Vec<(&'static str, Digest)>,
}

/// The size of an adapter.
#[derive(Clone, Copy)]
pub(crate) struct Weights {
    pub(crate) tensors: u64,
    pub(crate) values: u64,
    pub(crate) bytes: u64,
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

impl fmt::Display for Card<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.front_matter(f)?;
        writeln!(f, "# {}\n", self.title())?;
        writeln!(f, "A LoRA adapter in the format of PEFT, made by pipe {}.\n", env!("CARGO_PKG_VERSION"))?;
        self.usage(f)?;
        self.adapter(f)?;
        self.training(f)?;
        self.evaluation(f)?;
        self.origin(f)
    }
}

impl Card<'_> {
    fn title(&self) -> String {
        match (&self.config.title, self.base_model) {
            (Some(title), _) => title.clone(),
            (None, Some(base)) => format!("LoRA adapter for {base}"),
            (None, None) => "LoRA adapter".to_owned(),
        }
    }

    /// The YAML that the hub reads. JSON strings are YAML strings.
    fn front_matter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "---")?;
        if let Some(base) = self.base_model {
            writeln!(f, "base_model: {}", quoted(base))?;
        }
        writeln!(f, "library_name: peft\npipeline_tag: text-generation")?;
        if let Some(license) = &self.config.license {
            writeln!(f, "license: {}", quoted(license))?;
        }
        if !self.config.language.is_empty() {
            writeln!(f, "language:")?;
            for code in &self.config.language {
                writeln!(f, "- {}", quoted(code))?;
            }
        }
        writeln!(f, "tags:\n- lora")?;
        if let Some(base) = self.base_model {
            writeln!(f, "- {}", quoted(&format!("base_model:adapter:{base}")))?;
        }
        writeln!(f, "---\n")
    }

    fn usage(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let base = self.base_model.unwrap_or("BASE");
        writeln!(f, "## Use\n\n```python")?;
        writeln!(f, "from peft import PeftModel\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n")?;
        writeln!(f, "base = AutoModelForCausalLM.from_pretrained({})", quoted(base))?;
        writeln!(f, "model = PeftModel.from_pretrained(base, \".\")  # this folder")?;
        writeln!(f, "tokenizer = AutoTokenizer.from_pretrained(\".\")\n```\n")
    }

    fn adapter(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let settings = self.settings;
        let or_none = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            if names.is_empty() { "none".to_owned() } else { names.join(", ") }
        };
        writeln!(f, "## Adapter\n\n| | |\n|---|---|")?;
        row(f, "r", &settings.r)?;
        row(f, "lora_alpha", &settings.lora_alpha)?;
        row(f, "use_rslora", &settings.use_rslora)?;
        row(f, "scale", &format_args!("{:.6}", settings.scale()))?;
        row(f, "lora_dropout", &settings.lora_dropout)?;
        row(f, "target_modules", &or_none(&settings.target_modules))?;
        row(f, "modules_to_save", &or_none(&settings.modules_to_save))?;
        row(f, "tensors", &self.weights.tensors)?;
        row(f, "values", &self.weights.values)?;
        row(f, "bytes", &self.weights.bytes)?;
        writeln!(f)
    }

    fn training(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(training) = &self.training else { return Ok(()) };
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
        for report in &self.reports {
            let model = if report.adapter { "base with this adapter" } else { "base" };
            let Report { samples, tokens, loss, perplexity, .. } = report;
            writeln!(f, "| {model} | {samples} | {tokens} | {loss:.6} | {perplexity:.4} |")?;
        }
        writeln!(f)
    }

    fn origin(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "## Made from\n\nBLAKE3 digests of the artifacts in pipe's cache.\n\n| | |\n|---|---|")?;
        for (name, digest) in &self.digests {
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
