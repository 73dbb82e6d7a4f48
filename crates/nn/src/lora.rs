//! LoRA: `y = W x + s B(A(drop(x)))`.
//!
//! # Source
//! Hu et al., arXiv:2106.09685; the rank-stabilised scale is Kalajdzievski, arXiv:2312.03732. Names and layout are
//! PEFT's.
#![expect(non_snake_case, reason = "shape suffixes: I width in, O width out, R rank")]

use pipe_hf::AdapterTensor;
use pipe_kernels::{
    ops::Adapter,
    philox::{philox, split},
};
use serde::{Deserialize, Serialize};
use tch::{Device, Tensor};

use crate::{Error, Parameter, Precision, decoder::Pass, error::Result};

/// The linear layers of a block that LoRA can train, in the order of the computation.
pub const TARGET_MODULES: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];

/// The modules that can be trained as a whole.
pub(crate) const SAVABLE_MODULES: [&str; 2] = ["embed_tokens", "lm_head"];

/// What is trained, under PEFT's names. The default trains nothing: a base as it is.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoraConfig {
    /// Rank of the update, at least 1 where there are target modules.
    pub r: usize,
    /// Numerator of the scale.
    pub lora_alpha: f64,
    /// Which of [`TARGET_MODULES`] get an adapter, in every layer.
    pub target_modules: Vec<String>,
    /// Chance of an input of the adapter to be dropped while training, in `[0, 1)`.
    pub lora_dropout: f64,
    /// Whether the scale is `alpha / sqrt(r)` instead of `alpha / r`.
    pub use_rslora: bool,
    /// `embed_tokens` and `lm_head`, or one of them: trained as a whole. Where the base ties them, either trains both.
    pub modules_to_save: Vec<String>,
}

impl LoraConfig {
    /// The factor of the update.
    pub fn scale(&self) -> f64 {
        let rank = self.r as f64;
        self.lora_alpha / if self.use_rslora { rank.sqrt() } else { rank }
    }

    /// Checks what no model can have.
    ///
    /// # Errors
    /// The first wrong field.
    pub fn check(&self) -> std::result::Result<(), Error> {
        let wrong = |field, problem| Err(Error::Lora { field, problem });
        if let Some(name) = unknown(&self.target_modules, &TARGET_MODULES) {
            return wrong("target_modules", format!("`{name}` is none of {}", TARGET_MODULES.join(", ")));
        }
        if let Some(name) = unknown(&self.modules_to_save, &SAVABLE_MODULES) {
            return wrong("modules_to_save", format!("`{name}` is none of {}", SAVABLE_MODULES.join(", ")));
        }
        if !self.target_modules.is_empty() && self.r == 0 {
            return wrong("r", "must be at least 1".to_owned());
        }
        if !(0.0..1.0).contains(&self.lora_dropout) {
            return wrong("lora_dropout", format!("must be at least 0 and below 1, it is {}", self.lora_dropout));
        }
        if !self.lora_alpha.is_finite() {
            return wrong("lora_alpha", format!("must be a finite number, it is {}", self.lora_alpha));
        }
        Ok(())
    }

    pub(crate) fn targets(&self, module: &str) -> bool {
        self.target_modules.iter().any(|name| name == module)
    }

    pub(crate) fn saves(&self, module: &str) -> bool {
        self.modules_to_save.iter().any(|name| name == module)
    }
}

fn unknown<'a>(names: &'a [String], known: &[&str]) -> Option<&'a String> {
    names.iter().find(|name| !known.contains(&name.as_str()))
}

/// The adapter of one linear layer. Its matrices are parameters of the model.
#[derive(Debug)]
pub(crate) struct Lora {
    /// Number of the parameter A, `[R, I]`.
    a: usize,
    /// Number of the parameter B, `[O, R]`.
    b: usize,
    rank: i64,
    scale: f64,
}

impl Lora {
    /// Adds a fresh adapter's matrices to `parameters`: A uniform in `±1/sqrt(I)`, which is
    /// `kaiming_uniform(a = sqrt 5)`, and B zero.
    pub(crate) fn new(
        config: &LoraConfig,
        module: &str,
        [output, input]: [usize; 2],
        (seed, precision, device): (u64, Precision, Device),
        parameters: &mut Vec<Parameter>,
    ) -> Result<Self> {
        let (name_a, name_b) = (
            AdapterTensor::LoraA { module: module.to_owned() }.key(),
            AdapterTensor::LoraB { module: module.to_owned() }.key(),
        );
        let bound = 1.0 / (input as f64).sqrt();
        let values = uniform(seed, &name_a, config.r * input, bound);
        let a = Tensor::f_from_slice(&values)?
            .f_view([config.r as i64, input as i64])?
            .f_to_device(device)?
            .f_to_kind(precision.master())?;
        let b = Tensor::f_zeros([output as i64, config.r as i64], (precision.master(), device))?;
        let first = parameters.len();
        parameters.push(Parameter::matrix(name_a, a)?);
        parameters.push(Parameter::matrix(name_b, b)?);
        Ok(Self { a: first, b: first + 1, rank: config.r as i64, scale: config.scale() })
    }

    /// The rank.
    pub(crate) fn rank(&self) -> i64 {
        self.rank
    }

    /// What the operations need of it: `module` is the number of its linear layer, `None` stands for no pass.
    pub(crate) fn adapter<'a>(&self, module: u32, pass: Option<&Pass>, parameters: &'a [Parameter]) -> Adapter<'a> {
        let kept = pass.and_then(|pass| pass.dropout.as_ref()).map_or(1.0, |dropout| dropout.scale);
        // Without it the base answers alone: B rides in the weights, so the inner values are nothing.
        let counts = pass.is_none_or(|pass| pass.adapters);
        let (a_RI, b_OR) = (parameters[self.a].whole(), parameters[self.b].whole());
        Adapter { a_RI, b_OR, module, factor: if counts { self.scale * kept } else { 0.0 } }
    }

    /// The gradients of A and B.
    pub(crate) fn gradients<'a>(&self, parameters: &'a [Parameter]) -> Result<[&'a Tensor; 2]> {
        Ok([parameters[self.a].whole_grad()?, parameters[self.b].whole_grad()?])
    }
}

/// Values uniform in `±bound`, the same on every machine, from a stream of their own for each seed and name.
fn uniform(seed: u64, name: &str, count: usize, bound: f64) -> Vec<f32> {
    let [name_low, name_high] = split(fnv1a(name.as_bytes()));
    let key = split(seed);
    let words = (0..count.div_ceil(4) as u64).flat_map(|block| {
        let [block_low, block_high] = split(block);
        philox([block_low, block_high, name_low, name_high], key)
    });
    // The middle of one of 2^32 equal parts: symmetric, and never the bound itself.
    words.take(count).map(|word| (((f64::from(word) + 0.5) / 2_147_483_648.0 - 1.0) * bound) as f32).collect()
}

/// FNV-1a, 64 bits: tells the streams of differently named tensors apart.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;

    fn config() -> LoraConfig {
        LoraConfig { r: 8, lora_alpha: 16.0, target_modules: vec!["q_proj".to_owned()], ..LoraConfig::default() }
    }

    #[test]
    fn scales() {
        assert_eq!(config().scale(), 2.0);
        let rank_stabilised = LoraConfig { use_rslora: true, ..config() }.scale();
        assert!((rank_stabilised - 5.656_854_249_492_38).abs() < 1e-14);
    }

    #[test]
    fn fnv_known_answers() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn initial_values_are_uniform_and_pinned() {
        let values = uniform(42, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 100_000, 0.125);
        assert!(values.iter().all(|value| value.abs() < 0.125));
        let mean = values.iter().map(|value| f64::from(*value)).sum::<f64>() / 1e5;
        let square = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>() / 1e5;
        assert!(mean.abs() < 1e-3, "{mean}");
        assert!((square - 0.125_f64.powi(2) / 3.0).abs() < 5e-5, "{square}");
        assert_ne!(
            values[..8],
            uniform(43, "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", 8, 0.125)
        );
        assert_ne!(
            values[..8],
            uniform(42, "base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight", 8, 0.125)
        );
    }

    #[test]
    fn wrong_settings_are_named() {
        let message = |config: LoraConfig| config.check().unwrap_err().to_string();
        assert!(config().check().is_ok());
        assert!(LoraConfig::default().check().is_ok());
        assert!(
            message(LoraConfig { target_modules: vec!["qkv".to_owned()], ..config() })
                .starts_with("lora.target_modules: `qkv` is none of q_proj")
        );
        assert!(
            message(LoraConfig { modules_to_save: vec!["norm".to_owned()], ..config() })
                .contains("embed_tokens, lm_head")
        );
        assert_eq!(message(LoraConfig { r: 0, ..config() }), "lora.r: must be at least 1");
        assert!(message(LoraConfig { lora_dropout: 1.0, ..config() }).contains("below 1"));
        assert!(message(LoraConfig { lora_dropout: f64::NAN, ..config() }).contains("NaN"));
    }
}
