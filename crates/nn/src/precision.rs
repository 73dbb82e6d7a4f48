//! The element types that a run computes in.

use tch::Kind;

/// What a run computes in.
///
/// `Bf16` follows a PEFT run of transformers' Trainer with `bf16: true` on a base prepared for k-bit training: the
/// residual stream, norms and rotary embedding in float32; the inputs and outputs of every linear layer, the operands
/// of attention and the logits in bfloat16; softmax and loss in float32; trained weights and gradients in float32.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// float32 throughout.
    Fp32,
    /// bfloat16 products, everything else float32.
    Bf16,
    /// The same with float16 in the place of bfloat16: three bits more of each value, and none above 65504. Gradients
    /// are those of the loss times [`Model::set_loss_scale`](crate::Model::set_loss_scale).
    Fp16,
    /// float64 throughout: what finite differences need, nothing else.
    Fp64,
}

impl Precision {
    /// The type of the operands and results of linear layers and attention.
    pub(crate) fn compute(self) -> Kind {
        match self {
            Self::Fp32 => Kind::Float,
            Self::Bf16 => Kind::BFloat16,
            Self::Fp16 => Kind::Half,
            Self::Fp64 => Kind::Double,
        }
    }

    /// The type of the residual stream, norms, softmax, trained weights and gradients.
    pub(crate) fn master(self) -> Kind {
        match self {
            Self::Fp32 | Self::Bf16 | Self::Fp16 => Kind::Float,
            Self::Fp64 => Kind::Double,
        }
    }
}
