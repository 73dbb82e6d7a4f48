//! The types that kernels compute in.

use tch::Kind;

use crate::Error;

/// The type of the operands and results of a kernel: `ELEMENT` of the CUDA sources.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Element {
    Float32 = 0,
    Bfloat16 = 1,
    Float16 = 2,
}

impl Element {
    #[cfg(test)]
    pub(crate) const ALL: [Self; 3] = [Self::Float32, Self::Bfloat16, Self::Float16];

    pub(crate) fn of(kernel: &'static str, kind: Kind) -> Result<Self, Error> {
        match kind {
            Kind::Float => Ok(Self::Float32),
            Kind::BFloat16 => Ok(Self::Bfloat16),
            Kind::Half => Ok(Self::Float16),
            other => {
                let problem = format!("computes in float32, bfloat16 or float16 on CUDA, not in {other:?}");
                Err(Error::Operands { kernel, problem })
            }
        }
    }
}

/// The type of sums, of the residual stream and of trained weights, for a type of computation: float32, or float64
/// where everything is.
pub(crate) fn master(kind: Kind) -> Kind {
    if kind == Kind::Double { Kind::Double } else { Kind::Float }
}
