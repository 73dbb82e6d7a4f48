//! `config.json` of a model with plain weights, in a form that old and new readers take alike.

use serde_json::{Map, Value, json};

use crate::{Dtype, ModelConfig, torch_name};

impl ModelConfig {
    /// The fields of `config.json` for weights of `dtype` that are not quantised: those of [`raw`](Self::raw), with what
    /// this configuration says of type, tying and rotary embedding written in the styles of transformers 4
    /// (`torch_dtype`, `rope_theta`, `rope_scaling`) and 5 (`dtype`, `rope_parameters`). A reader that finds neither of
    /// its own takes a base of 10000 without a word.
    pub fn dense_json(&self, dtype: Dtype) -> Map<String, Value> {
        let mut object = self.raw.clone();
        // Not `remove`, which would move the last field into the gap.
        object.shift_remove("quantization_config");
        let name = torch_name(dtype);
        // A base that is a whole number is written without a fraction, as published files have it.
        let whole = self.rope_theta.fract() == 0.0 && self.rope_theta < 1e15;
        let theta = if whole { json!(self.rope_theta as i64) } else { json!(self.rope_theta) };
        let fields = [
            ("architectures", json!([self.architecture.class_name()])),
            ("model_type", json!(self.architecture.model_type())),
            ("tie_word_embeddings", json!(self.tie_word_embeddings)),
            ("dtype", json!(name)),
            ("torch_dtype", json!(name)),
            ("rope_theta", theta.clone()),
            ("rope_scaling", Value::Null),
            ("rope_parameters", json!({ "rope_theta": theta, "rope_type": "default" })),
        ];
        object.extend(fields.map(|(name, value)| (name.to_owned(), value)));
        object
    }
}
