//! What can be written, and the types of weights.

use std::fmt;

use pipe_gguf::TensorType;
use pipe_hf::Dtype;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{self, IntoDeserializer, SeqAccess, Visitor},
};

/// A form of the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Format {
    /// The adapter as a PEFT folder.
    Adapter,
    /// Base and adapter as one Hugging Face model.
    Merged,
    /// The merged model as a GGUF file.
    Gguf,
    /// The adapter as a GGUF file.
    GgufAdapter,
    /// The merged model as a GGUF file with a Modelfile.
    Ollama,
    /// The merged model, quantised to NF4.
    Bnb4,
}

impl Format {
    /// Its name in a pipeline, and of its folder.
    pub fn name(self) -> &'static str {
        match self {
            Self::Adapter => "adapter",
            Self::Merged => "merged",
            Self::Gguf => "gguf",
            Self::GgufAdapter => "gguf_adapter",
            Self::Ollama => "ollama",
            Self::Bnb4 => "bnb4",
        }
    }

    /// Whether it holds the adapter alone.
    pub fn is_adapter(self) -> bool {
        matches!(self, Self::Adapter | Self::GgufAdapter)
    }
}

/// The formats of one artifact: in a pipeline one, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Formats(Vec<Format>);

impl Formats {
    /// In the order of the pipeline.
    pub fn iter(&self) -> impl Iterator<Item = Format> {
        self.0.iter().copied()
    }

    /// Whether it stands at the top of the artifact, being the only one.
    pub fn is_single(&self) -> bool {
        self.0.len() == 1
    }
}

impl Default for Formats {
    fn default() -> Self {
        Self(vec![Format::Adapter])
    }
}

impl<'de> Deserialize<'de> for Formats {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(OneOrMore)
    }
}

struct OneOrMore;

impl<'de> Visitor<'de> for OneOrMore {
    type Value = Formats;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a format or a list of formats")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Formats, E> {
        Format::deserialize(text.into_deserializer()).map(|format| Formats(vec![format]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Formats, A::Error> {
        let mut formats = Vec::new();
        while let Some(format) = items.next_element()? {
            formats.push(format);
        }
        Ok(Formats(formats))
    }
}

impl JsonSchema for Formats {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Formats".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let format = generator.subschema_for::<Format>();
        json_schema!({ "anyOf": [format, { "type": "array", "items": format, "minItems": 1, "uniqueItems": true }] })
    }
}

/// A type of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WeightType {
    /// bfloat16
    Bf16,
    /// float16
    Fp16,
    /// float32
    Fp32,
}

impl WeightType {
    /// The type in a file.
    pub fn dtype(self) -> Dtype {
        match self {
            Self::Bf16 => Dtype::BF16,
            Self::Fp16 => Dtype::F16,
            Self::Fp32 => Dtype::F32,
        }
    }
}

/// A type of the matrices of a GGUF file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum GgufType {
    /// float32
    F32,
    /// float16
    F16,
    /// bfloat16
    Bf16,
    /// 8 bits, 8.5 with the scales.
    Q8_0,
    /// 4 bits, 4.5 with the scales.
    Q4_0,
}

impl GgufType {
    /// The type in a file.
    pub fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4_0 => TensorType::Q4_0,
        }
    }
}
