//! `config.json` of a decoder: Qwen3, Qwen2 and Llama shapes.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    Dtype, Error, QuantizationConfig,
    dtype::dtype_from_torch_name,
    fields::{Fields, read_object, write_object},
};

/// More layers than any model has: a file that says more is damaged, and its parameters could not be listed.
const MAX_LAYERS: usize = 10_000;

/// The file in a model folder.
pub const CONFIG_FILE: &str = "config.json";

/// A family of decoders. They differ in biases and in the norms of queries and keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// `Qwen3ForCausalLM`: RMS norm on each query and key head, explicit head size.
    Qwen3,
    /// `Qwen2ForCausalLM`: biases on queries, keys and values.
    Qwen2,
    /// `LlamaForCausalLM`
    Llama,
}

impl Architecture {
    const ALL: [Self; 3] = [Self::Qwen3, Self::Qwen2, Self::Llama];

    /// `model_type`
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Qwen3 => "qwen3",
            Self::Qwen2 => "qwen2",
            Self::Llama => "llama",
        }
    }

    /// The entry of `architectures`.
    pub fn class_name(self) -> &'static str {
        match self {
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }
}

/// The shape of a decoder, from its `config.json`. What a reader of this project does not support is refused.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelConfig {
    /// The family.
    pub architecture: Architecture,
    /// Rows of the embedding.
    pub vocab_size: usize,
    /// Width of the residual stream.
    pub hidden_size: usize,
    /// Width of the MLP.
    pub intermediate_size: usize,
    /// Number of layers.
    pub num_hidden_layers: usize,
    /// Query heads.
    pub num_attention_heads: usize,
    /// Key and value heads; divides the query heads.
    pub num_key_value_heads: usize,
    /// Width of a head; even, and in Qwen3 independent of the hidden size.
    pub head_dim: usize,
    /// Epsilon of every RMS norm.
    pub rms_norm_eps: f64,
    /// Base of the rotary embedding.
    pub rope_theta: f64,
    /// Longest sequence that the model was made for, tokens.
    pub max_position_embeddings: usize,
    /// Whether the output head is the embedding.
    pub tie_word_embeddings: bool,
    /// Bias on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias on the output projection of attention.
    pub output_bias: bool,
    /// RMS norm on each head of queries and keys, before the rotary embedding.
    pub qk_norm: bool,
    /// Standard deviation of freshly drawn weights.
    pub initializer_range: f64,
    /// Token whose embedding row gets no gradient; below `vocab_size`.
    pub pad_token_id: Option<u32>,
    /// Token at the start of a text.
    pub bos_token_id: Option<u32>,
    /// Tokens that end a text.
    pub eos_token_ids: Vec<u32>,
    /// The type of the weights, where the file says it.
    pub dtype: Option<Dtype>,
    /// How the linear layers were quantised, if they were.
    pub quantization: Option<QuantizationConfig>,
    /// All fields of the file, in its order: what a writer starts from.
    pub raw: Map<String, Value>,
}

impl ModelConfig {
    /// Reads `config.json` in `dir`.
    ///
    /// # Errors
    /// If it cannot be read, a field is missing or wrong, or it asks for something that is not supported.
    pub fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(CONFIG_FILE);
        Self::from_object(&path, read_object(&path)?)
    }

    /// Reads the fields of a `config.json` that is already in memory; `path` stands in errors.
    ///
    /// # Errors
    /// If a field is missing or wrong, or asks for something that is not supported.
    pub fn from_object(path: &Path, raw: Map<String, Value>) -> Result<Self, Error> {
        let fields = Fields::new(path, &raw);
        let architecture = architecture(fields)?;
        refuse_unsupported(fields, architecture)?;
        let hidden_size = fields.count("hidden_size")?;
        let num_attention_heads = fields.count("num_attention_heads")?;
        let num_key_value_heads = match fields.optional_count("num_key_value_heads")? {
            Some(heads) => heads,
            None if architecture == Architecture::Llama => num_attention_heads,
            None => return Err(fields.wrong("num_key_value_heads", "is missing")),
        };
        if !num_attention_heads.is_multiple_of(num_key_value_heads) {
            let problem = format!("must divide num_attention_heads, which is {num_attention_heads}");
            return Err(fields.wrong("num_key_value_heads", problem));
        }
        let vocab_size = fields.count("vocab_size")?;
        let attention_bias = fields.or("attention_bias", false)?;
        let config = Self {
            architecture,
            vocab_size,
            hidden_size,
            intermediate_size: fields.count("intermediate_size")?,
            num_hidden_layers: num_hidden_layers(fields)?,
            num_attention_heads,
            num_key_value_heads,
            head_dim: head_dim(fields, architecture, hidden_size, num_attention_heads)?,
            rms_norm_eps: positive(fields, "rms_norm_eps", Some(1e-6))?,
            rope_theta: rope_theta(fields)?,
            max_position_embeddings: fields.count("max_position_embeddings")?,
            tie_word_embeddings: fields.or("tie_word_embeddings", false)?,
            qkv_bias: architecture == Architecture::Qwen2 || attention_bias,
            output_bias: architecture != Architecture::Qwen2 && attention_bias,
            qk_norm: architecture == Architecture::Qwen3,
            initializer_range: positive(fields, "initializer_range", Some(0.02))?,
            pad_token_id: pad_token_id(fields, vocab_size)?,
            bos_token_id: fields.optional("bos_token_id")?,
            eos_token_ids: eos_token_ids(fields)?,
            dtype: dtype(fields)?,
            quantization: fields
                .object("quantization_config", "quantization_config.")?
                .map(QuantizationConfig::parse)
                .transpose()?,
            raw: Map::new(),
        };
        Ok(Self { raw, ..config })
    }

    /// Writes [`raw`](Self::raw) as `config.json` in `dir`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn write(&self, dir: &Path) -> Result<(), Error> {
        write_object(&dir.join(CONFIG_FILE), &self.raw)
    }
}

fn architecture(fields: Fields<'_>) -> Result<Architecture, Error> {
    let supported = "qwen3, qwen2 and llama are supported";
    let classes: Vec<String> = fields.or("architectures", Vec::new())?;
    let model_type: Option<String> = fields.optional("model_type")?;
    let by_type = match &model_type {
        Some(name) => Some(
            Architecture::ALL
                .into_iter()
                .find(|architecture| architecture.model_type() == name)
                .ok_or_else(|| fields.wrong("model_type", format!("`{name}` is not supported; {supported}")))?,
        ),
        None => None,
    };
    let by_class = match classes.as_slice() {
        [] => None,
        [class] => Some(
            Architecture::ALL
                .into_iter()
                .find(|architecture| architecture.class_name() == class)
                .ok_or_else(|| fields.wrong("architectures", format!("`{class}` is not supported; {supported}")))?,
        ),
        _ => return Err(fields.wrong("architectures", "must name one class")),
    };
    match (by_type, by_class) {
        (Some(by_type), Some(by_class)) if by_type != by_class => {
            let (class, name) = (by_class.class_name(), by_type.model_type());
            Err(fields.wrong("architectures", format!("`{class}` contradicts model_type `{name}`")))
        }
        (Some(architecture), _) | (None, Some(architecture)) => Ok(architecture),
        (None, None) => Err(fields.wrong("model_type", format!("is missing; {supported}"))),
    }
}

fn refuse_unsupported(fields: Fields<'_>, architecture: Architecture) -> Result<(), Error> {
    let activation: String = fields.or("hidden_act", "silu".to_owned())?;
    if !matches!(activation.as_str(), "silu" | "swish") {
        return Err(fields.wrong("hidden_act", format!("`{activation}` is not supported, only silu is")));
    }
    if fields.or("mlp_bias", false)? {
        return Err(fields.wrong("mlp_bias", "biases in the MLP are not supported"));
    }
    if architecture != Architecture::Llama
        && fields.or("use_sliding_window", false)?
        && fields.raw("sliding_window").is_some()
    {
        return Err(fields.wrong("use_sliding_window", "sliding-window attention is not supported"));
    }
    let layer_types: Vec<String> = fields.or("layer_types", Vec::new())?;
    if let Some(other) = layer_types.iter().find(|layer_type| *layer_type != "full_attention") {
        return Err(fields.wrong("layer_types", format!("`{other}` is not supported, only full_attention is")));
    }
    Ok(())
}

fn num_hidden_layers(fields: Fields<'_>) -> Result<usize, Error> {
    let layers = fields.count("num_hidden_layers")?;
    if layers > MAX_LAYERS {
        return Err(fields.wrong("num_hidden_layers", format!("must be at most {MAX_LAYERS}, it is {layers}")));
    }
    Ok(layers)
}

fn head_dim(fields: Fields<'_>, architecture: Architecture, hidden_size: usize, heads: usize) -> Result<usize, Error> {
    let head_dim = match fields.optional_count("head_dim")? {
        Some(head_dim) => head_dim,
        // What transformers' Qwen3Config takes when the field is left out.
        None if architecture == Architecture::Qwen3 => 128,
        None if hidden_size.is_multiple_of(heads) => hidden_size / heads,
        None => {
            let problem =
                format!("is missing, and num_attention_heads {heads} does not divide hidden_size {hidden_size}");
            return Err(fields.wrong("head_dim", problem));
        }
    };
    if !head_dim.is_multiple_of(2) {
        return Err(fields.wrong("head_dim", format!("must be even for the rotary embedding, it is {head_dim}")));
    }
    Ok(head_dim)
}

/// `rope_parameters` (transformers 5) wins over `rope_theta` and `rope_scaling` (transformers 4). With neither,
/// transformers silently takes 10000, which is right for no model that is meant here: an error.
fn rope_theta(fields: Fields<'_>) -> Result<f64, Error> {
    for (name, prefix) in [("rope_parameters", "rope_parameters."), ("rope_scaling", "rope_scaling.")] {
        let Some(rope) = fields.object(name, prefix)? else { continue };
        for key in ["rope_type", "type"] {
            let rope_type: String = rope.or(key, "default".to_owned())?;
            if rope_type != "default" {
                return Err(rope.wrong(key, format!("`{rope_type}` is not supported, only default is")));
            }
        }
        if rope.or("partial_rotary_factor", 1.0)? != 1.0 {
            return Err(rope.wrong("partial_rotary_factor", "only 1.0 is supported"));
        }
        if rope.raw("rope_theta").is_some() {
            return positive(rope, "rope_theta", None);
        }
    }
    if fields.raw("rope_theta").is_none() {
        let problem = "is missing, at the top level and in rope_parameters; write the model's own base \
                       (1000000 for Qwen3), a reader would silently take 10000";
        return Err(fields.wrong("rope_theta", problem));
    }
    positive(fields, "rope_theta", None)
}

fn positive(fields: Fields<'_>, name: &str, default: Option<f64>) -> Result<f64, Error> {
    let value: f64 = match default {
        Some(default) => fields.or(name, default)?,
        None => fields.required(name)?,
    };
    if value.is_finite() && value > 0.0 {
        Ok(value)
    } else {
        Err(fields.wrong(name, format!("must be above 0, it is {value}")))
    }
}

/// torch counts a negative index from the end (older Llama files say -1).
fn pad_token_id(fields: Fields<'_>, vocab_size: usize) -> Result<Option<u32>, Error> {
    let Some(id) = fields.optional::<i64>("pad_token_id")? else { return Ok(None) };
    let row = if id < 0 { i64::try_from(vocab_size).ok().and_then(|size| size.checked_add(id)) } else { Some(id) };
    let row = row.and_then(|row| usize::try_from(row).ok()).filter(|row| *row < vocab_size);
    match row.and_then(|row| u32::try_from(row).ok()) {
        Some(row) => Ok(Some(row)),
        None => Err(fields.wrong("pad_token_id", format!("{id} is outside of the vocabulary of {vocab_size}"))),
    }
}

fn eos_token_ids(fields: Fields<'_>) -> Result<Vec<u32>, Error> {
    match fields.raw("eos_token_id") {
        Some(Value::Array(_)) => fields.or("eos_token_id", Vec::new()),
        _ => Ok(fields.optional("eos_token_id")?.into_iter().collect()),
    }
}

fn dtype(fields: Fields<'_>) -> Result<Option<Dtype>, Error> {
    for name in ["dtype", "torch_dtype"] {
        if let Some(text) = fields.optional::<String>(name)?
            && text != "auto"
        {
            return dtype_from_torch_name(&text)
                .map(Some)
                .ok_or_else(|| fields.wrong(name, format!("`{text}` is none of float32, bfloat16, float16")));
        }
    }
    Ok(None)
}
