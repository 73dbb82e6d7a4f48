//! PEFT LoRA adapters: `adapter_config.json` and the names in `adapter_model.safetensors`.

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::{
    Error,
    fields::{Fields, read_object, write_object},
};

/// The settings of an adapter folder.
pub const ADAPTER_CONFIG_FILE: &str = "adapter_config.json";
/// The tensors of an adapter folder.
pub const ADAPTER_WEIGHTS_FILE: &str = "adapter_model.safetensors";

/// The version of PEFT whose conventions are written.
const PEFT_VERSION: &str = "0.21.2";

/// The settings of a LoRA adapter. Variants of LoRA that are not plain (DoRA, patterns of ranks, biases ...) are refused
/// on reading.
#[derive(Debug, Clone, PartialEq)]
pub struct AdapterConfig {
    /// `base_model_name_or_path`: what the adapter was trained on.
    pub base_model: Option<String>,
    /// Rank.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Dropout on the input of the LoRA branch while training, 0 to below 1.
    pub lora_dropout: f64,
    /// Scale `alpha / sqrt(r)` instead of `alpha / r`.
    pub use_rslora: bool,
    /// Names of the linear layers with an adapter, or the ends of their paths.
    pub target_modules: Vec<String>,
    /// Names of the modules trained as a whole.
    pub modules_to_save: Vec<String>,
    /// Whether embedding and head of a tied model stay one parameter.
    pub ensure_weight_tying: bool,
}

impl AdapterConfig {
    /// Reads `adapter_config.json` in `dir`. Absent fields take PEFT's defaults, unknown ones are passed over.
    ///
    /// # Errors
    /// If it cannot be read, or asks for something that is not supported.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(ADAPTER_CONFIG_FILE);
        let object = read_object(&path)?;
        let fields = Fields::new(&path, &object);
        refuse_unsupported(fields)?;
        let config = Self {
            base_model: fields.optional("base_model_name_or_path")?,
            r: fields.optional_count("r")?.unwrap_or(8),
            lora_alpha: fields.or("lora_alpha", 8.0)?,
            lora_dropout: fields.or("lora_dropout", 0.0)?,
            use_rslora: fields.or("use_rslora", false)?,
            target_modules: fields.required("target_modules")?,
            modules_to_save: fields.or("modules_to_save", Vec::new())?,
            ensure_weight_tying: fields.or("ensure_weight_tying", false)?,
        };
        if !config.lora_alpha.is_finite() {
            return Err(fields.wrong("lora_alpha", "must be a finite number"));
        }
        if !(0.0..1.0).contains(&config.lora_dropout) {
            return Err(fields.wrong("lora_dropout", "must be at least 0 and below 1"));
        }
        Ok(config)
    }

    /// The factor of the LoRA branch.
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Writes `adapter_config.json` into `dir`. The same settings give the same bytes: lists are sorted.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        write_object(&dir.join(ADAPTER_CONFIG_FILE), &self.to_json())
    }

    fn to_json(&self) -> Map<String, Value> {
        let sorted = |names: &[String]| {
            let mut names = names.to_vec();
            names.sort();
            names
        };
        let modules_to_save = (!self.modules_to_save.is_empty()).then(|| sorted(&self.modules_to_save));
        let whole = self.lora_alpha.fract() == 0.0 && self.lora_alpha.abs() < 1e15;
        // PEFT declares an integer; a fraction is legal in practice and kept.
        let lora_alpha = if whole { json!(self.lora_alpha as i64) } else { json!(self.lora_alpha) };
        let object = json!({
            "alpha_pattern": {},
            "base_model_name_or_path": self.base_model,
            "bias": "none",
            "ensure_weight_tying": self.ensure_weight_tying,
            "fan_in_fan_out": false,
            "inference_mode": true,
            "init_lora_weights": true,
            "lora_alpha": lora_alpha,
            "lora_bias": false,
            "lora_dropout": self.lora_dropout,
            "modules_to_save": modules_to_save,
            "peft_type": "LORA",
            "peft_version": PEFT_VERSION,
            "r": self.r,
            "rank_pattern": {},
            "target_modules": sorted(&self.target_modules),
            "task_type": "CAUSAL_LM",
            "use_dora": false,
            "use_rslora": self.use_rslora,
        });
        match object {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }
}

fn refuse_unsupported(fields: Fields<'_>) -> Result<(), Error> {
    let peft_type: String = fields.required("peft_type")?;
    if peft_type != "LORA" {
        return Err(fields.wrong("peft_type", format!("`{peft_type}` is not supported, only LORA is")));
    }
    let bias: String = fields.or("bias", "none".to_owned())?;
    if bias != "none" {
        return Err(fields.wrong("bias", format!("`{bias}` is not supported, only none is")));
    }
    for name in ["use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "use_bdlora"] {
        if fields.or(name, false)? {
            return Err(fields.wrong(name, "is not supported, it must be false"));
        }
    }
    for name in ["rank_pattern", "alpha_pattern"] {
        if fields.or(name, Map::new())?.values().next().is_some() {
            return Err(fields.wrong(name, "is not supported, it must be empty"));
        }
    }
    for name in [
        "layers_to_transform",
        "layer_replication",
        "exclude_modules",
        "target_parameters",
        "trainable_token_indices",
        "alora_invocation_tokens",
    ] {
        if fields.raw(name).is_some() {
            return Err(fields.wrong(name, "is not supported, it must be null"));
        }
    }
    if matches!(fields.raw("target_modules"), Some(Value::String(_))) {
        return Err(fields.wrong("target_modules", "must be a list of module names; a pattern is not supported"));
    }
    // Such initialisations move part of the base's weights into the adapter: it fits only a changed base.
    match fields.raw("init_lora_weights") {
        None | Some(Value::Bool(_)) => Ok(()),
        Some(Value::String(name)) if matches!(name.as_str(), "gaussian" | "eva" | "orthogonal") => Ok(()),
        Some(other) => {
            Err(fields.wrong("init_lora_weights", format!("{other} changes the base, which is not supported")))
        }
    }
}

/// What a tensor of an adapter is. Module names are the base's: `model.layers.0.self_attn.q_proj`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AdapterTensor {
    /// The down projection, `[r, in]`.
    LoraA {
        /// The linear layer that it belongs to.
        module: String,
    },
    /// The up projection, `[out, r]`.
    LoraB {
        /// The linear layer that it belongs to.
        module: String,
    },
    /// The weight of a module trained as a whole.
    Saved {
        /// The module.
        module: String,
    },
}

impl AdapterTensor {
    /// Reads a key of `adapter_model.safetensors`; `None` if it is none of these.
    pub fn parse(key: &str) -> Option<Self> {
        let path = key.strip_prefix("base_model.model.")?.strip_suffix(".weight")?;
        if let Some(module) = path.strip_suffix(".lora_A") {
            Some(Self::LoraA { module: module.to_owned() })
        } else if let Some(module) = path.strip_suffix(".lora_B") {
            Some(Self::LoraB { module: module.to_owned() })
        } else {
            Some(Self::Saved { module: path.to_owned() })
        }
    }

    /// The key in `adapter_model.safetensors`. The name of the adapter is not part of it.
    pub fn key(&self) -> String {
        let (module, part) = match self {
            Self::LoraA { module } => (module, ".lora_A"),
            Self::LoraB { module } => (module, ".lora_B"),
            Self::Saved { module } => (module, ""),
        };
        format!("base_model.model.{module}{part}.weight")
    }
}
