//! The fields of `with:` of a `quantize` stage: those of transformers' `BitsAndBytesConfig`.

use std::collections::BTreeSet;

use pipe_hf::Dtype;
use pipe_stage::{Problems, Validate};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How to quantise. Names and, where nothing else is said, defaults are those of transformers' `BitsAndBytesConfig`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Quantise to 4 bits. Must be true, which is the default here.
    pub load_in_4bit: bool,
    /// Quantise to 8 bits. Not supported: must be false. Default false.
    pub load_in_8bit: bool,
    /// The data type of 4 bits. Only `nf4` is supported, and is the default here.
    pub bnb_4bit_quant_type: QuantType,
    /// The type of matrix products that is written into the checkpoint for its readers; it changes no weight. Training
    /// takes its own (`bf16`). Default `float32`.
    pub bnb_4bit_compute_dtype: ComputeType,
    /// Quantise the scales of the blocks too, which saves 0.37 bits a weight. Default false.
    pub bnb_4bit_use_double_quant: bool,
    /// The type that the packed codes are stored as. Only `uint8` is supported. Default `uint8`.
    pub bnb_4bit_quant_storage: Option<StorageType>,
    /// Another name for `bnb_4bit_quant_storage`, taken with a warning. Not both. Default: none.
    pub bnb_4bit_storage_dtype: Option<StorageType>,
}

/// A data type of 4 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuantType {
    /// Quantiles of the normal distribution.
    Nf4,
    /// A tiny float. Not supported.
    Fp4,
}

/// A type of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ComputeType {
    /// 8 exponent bits, 23 of mantissa.
    Float32,
    /// 8 exponent bits, 7 of mantissa.
    Bfloat16,
    /// 5 exponent bits, 10 of mantissa.
    Float16,
}

/// A type to store packed codes as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum StorageType {
    /// A byte, two codes.
    Uint8,
    /// Not supported.
    Float16,
    /// Not supported.
    Bfloat16,
    /// Not supported.
    Float32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            load_in_4bit: true,
            load_in_8bit: false,
            bnb_4bit_quant_type: QuantType::Nf4,
            bnb_4bit_compute_dtype: ComputeType::Float32,
            bnb_4bit_use_double_quant: false,
            bnb_4bit_quant_storage: None,
            bnb_4bit_storage_dtype: None,
        }
    }
}

impl ComputeType {
    pub(crate) fn dtype(self) -> Dtype {
        match self {
            Self::Float32 => Dtype::F32,
            Self::Bfloat16 => Dtype::BF16,
            Self::Float16 => Dtype::F16,
        }
    }
}

impl Validate for Config {
    fn validate(&self, _inputs: &BTreeSet<String>, problems: &mut Problems) {
        problems.require(self.load_in_4bit, "load_in_4bit", "must be true: only 4 bits are supported");
        problems.require(!self.load_in_8bit, "load_in_8bit", "8 bits are not supported, only 4 bits (nf4) are");
        let nf4 = self.bnb_4bit_quant_type == QuantType::Nf4;
        problems.require(nf4, "bnb_4bit_quant_type", "fp4 is not supported, only nf4 is");
        for (field, storage) in [
            ("bnb_4bit_quant_storage", self.bnb_4bit_quant_storage),
            ("bnb_4bit_storage_dtype", self.bnb_4bit_storage_dtype),
        ] {
            let supported = storage.is_none_or(|storage| storage == StorageType::Uint8);
            problems.require(supported, field, "only uint8 is supported");
        }
        if self.bnb_4bit_quant_storage.is_some() && self.bnb_4bit_storage_dtype.is_some() {
            problems.at("bnb_4bit_storage_dtype", "is another name for bnb_4bit_quant_storage: give one of the two");
        }
    }
}
