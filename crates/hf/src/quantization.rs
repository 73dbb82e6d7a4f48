//! `quantization_config` of a bitsandbytes 4-bit checkpoint.

use serde_json::{Map, Value, json};

use crate::{Dtype, Error, dtype::dtype_from_torch_name, fields::Fields, torch_name};

/// How a checkpoint was quantised: bitsandbytes, 4 bits, NF4. Everything else is refused on reading.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantizationConfig {
    /// `bnb_4bit_compute_dtype`: the type of the matrix products that the maker had in mind.
    pub compute_dtype: Dtype,
    /// `bnb_4bit_use_double_quant`: whether the scales are quantised too.
    pub double_quant: bool,
    /// `llm_int8_skip_modules`: linear layers that are not quantised. Where it is given it takes the place of the
    /// default, `lm_head`.
    pub skip_modules: Option<Vec<String>>,
}

impl QuantizationConfig {
    /// The object as transformers writes it, fields in its order.
    pub fn to_json(&self) -> Map<String, Value> {
        let object = json!({
            "_load_in_4bit": true,
            "_load_in_8bit": false,
            "bnb_4bit_compute_dtype": torch_name(self.compute_dtype),
            "bnb_4bit_quant_storage": "uint8",
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": self.double_quant,
            "llm_int8_enable_fp32_cpu_offload": false,
            "llm_int8_has_fp16_weight": false,
            "llm_int8_skip_modules": self.skip_modules,
            "llm_int8_threshold": 6.0,
            "load_in_4bit": true,
            "load_in_8bit": false,
            "quant_method": "bitsandbytes",
        });
        match object {
            Value::Object(object) => object,
            _ => Map::new(),
        }
    }

    /// Reads the object. The storage type (`bnb_4bit_quant_storage`) is only a view of the same bytes: any will do.
    pub(crate) fn parse(fields: Fields<'_>) -> Result<Self, Error> {
        let method: String = fields.required("quant_method")?;
        if method != "bitsandbytes" {
            return Err(fields.wrong("quant_method", format!("`{method}` is not supported, only bitsandbytes is")));
        }
        if fields.or("load_in_8bit", false)? {
            return Err(fields.wrong("load_in_8bit", "8-bit checkpoints are not supported, only 4-bit ones (nf4)"));
        }
        if !fields.or("load_in_4bit", false)? {
            return Err(fields.wrong("load_in_4bit", "must be true: only 4-bit checkpoints (nf4) are supported"));
        }
        let quant_type: String = fields.or("bnb_4bit_quant_type", "fp4".to_owned())?;
        if quant_type != "nf4" {
            return Err(fields.wrong("bnb_4bit_quant_type", format!("`{quant_type}` is not supported, only nf4 is")));
        }
        let compute: String = fields.or("bnb_4bit_compute_dtype", "float32".to_owned())?;
        let compute_dtype = dtype_from_torch_name(&compute).ok_or_else(|| {
            fields.wrong("bnb_4bit_compute_dtype", format!("`{compute}` is none of float32, bfloat16, float16"))
        })?;
        Ok(Self {
            compute_dtype,
            double_quant: fields.or("bnb_4bit_use_double_quant", false)?,
            skip_modules: fields.optional("llm_int8_skip_modules")?,
        })
    }

    /// Whether the linear layer `module` (`model.layers.0.mlp.up_proj`, `lm_head`) is left unquantised. A name in the
    /// list stands for a module of that name, at the end of a path or as the whole of it.
    pub fn skips(&self, module: &str) -> bool {
        let is = |name: &str| module == name || module.strip_suffix(name).is_some_and(|rest| rest.ends_with('.'));
        match &self.skip_modules {
            Some(names) => names.iter().any(|name| is(name)),
            None => is("lm_head"),
        }
    }
}
