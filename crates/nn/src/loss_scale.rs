//! The scale of the loss in float16, whose least values are too coarse for gradients as they are.

use serde::{Deserialize, Serialize};

/// Good updates in a row behind which the scale doubles.
const GROWTH_INTERVAL: u64 = 2000;
/// Two to this power is the scale at first.
const FIRST_EXPONENT: i32 = 16;
/// The largest power of two in float32.
const LAST_EXPONENT: i32 = 127;

/// What the loss is multiplied by, a power of two. It halves with each update whose gradients are not finite, which
/// changes nothing else, and doubles behind 2000 good ones in a row.
///
/// # Source
/// Micikevicius et al., Mixed Precision Training, arXiv:1710.03740; `torch.amp.GradScaler` with its defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    exponent: i32,
    /// Since the scale last changed, or an update was skipped.
    good_updates: u64,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { exponent: FIRST_EXPONENT, good_updates: 0 }
    }
}

impl LossScale {
    /// What the loss is multiplied by.
    pub fn value(&self) -> f64 {
        f64::from(self.exponent).exp2()
    }

    /// Good updates since the scale last changed.
    pub fn good_updates(&self) -> u64 {
        self.good_updates
    }

    /// Takes note of an update: whether its gradients were finite.
    pub fn take(&mut self, finite: bool) {
        if !finite {
            *self = Self { exponent: self.exponent - 1, good_updates: 0 };
        } else if self.good_updates + 1 == GROWTH_INTERVAL {
            *self = Self { exponent: (self.exponent + 1).min(LAST_EXPONENT), good_updates: 0 };
        } else {
            self.good_updates += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The scales of `torch.amp.GradScaler` (torch 2.11.0) behind the same updates.
    #[test]
    fn scales_are_those_of_torch() {
        let mut scale = LossScale::default();
        let mut behind = |finite: bool, updates: u64| {
            for _ in 0..updates {
                scale.take(finite);
            }
            (scale.value(), scale.good_updates())
        };
        assert_eq!(behind(true, 0), (65536.0, 0));
        assert_eq!(behind(true, 1999), (65536.0, 1999));
        assert_eq!(behind(true, 1), (131_072.0, 0));
        assert_eq!(behind(true, 7), (131_072.0, 7));
        assert_eq!(behind(false, 1), (65536.0, 0));
        assert_eq!(behind(false, 2), (16384.0, 0));
        assert_eq!(behind(true, 2001), (32768.0, 1));
        assert_eq!(behind(false, 16), (0.5, 0));
    }
}
