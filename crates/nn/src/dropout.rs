//! Dropout masks: never stored, drawn again in the backward pass from the [`Counters`] of the pass.

use tch::{Device, Kind, Tensor};

use crate::{
    batch::PackedBatch,
    counters::{Counters, LANES},
    error::Result,
};

/// Counters that are evaluated at once on a device: 64 MiB a tensor, of which a handful live together.
const GROUP_COUNTERS: usize = 1 << 23;

/// The dropout of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// Chance of a value to be dropped, in `[0, 1)`.
    pub(crate) probability: f64,
    pub(crate) seed: u64,
}

impl Dropout {
    /// The masks of one pass; `None` if nothing is dropped.
    pub(crate) fn pass(&self, update: u64, batch: &PackedBatch, device: Device) -> Result<Option<PassDropout>> {
        if self.probability <= 0.0 {
            return Ok(None);
        }
        Ok(Some(PassDropout {
            counters: Counters::new(self.seed, update, batch, device)?,
            // Exact up to 2^32, and so for every probability below 1.
            threshold: (self.probability * 4_294_967_296.0).round() as u32,
            scale: 1.0 / (1.0 - self.probability),
        }))
    }
}

/// The masks of one pass.
#[derive(Debug)]
pub(crate) struct PassDropout {
    counters: Counters,
    /// A word below it drops its channel.
    threshold: u32,
    /// What kept values are multiplied by.
    scale: f64,
}

/// The mask of one module's input.
#[derive(Debug)]
pub(crate) struct Mask {
    /// Whether a value is kept, `[tokens, width]`, bool.
    pub(crate) keep: Tensor,
    /// What kept values are multiplied by.
    pub(crate) scale: f64,
}

impl PassDropout {
    /// The masks of several modules, given as number and width of input. On a device one evaluation serves as many as
    /// fit the budget: it takes over a hundred launches, however large it is.
    pub(crate) fn masks(&self, modules: &[(u32, usize)]) -> Result<Vec<Mask>> {
        if self.counters.device() == Device::Cpu {
            return modules.iter().map(|(module, width)| self.mask_on_cpu(*module, *width)).collect();
        }
        let mut masks = Vec::with_capacity(modules.len());
        let mut rest = modules;
        while !rest.is_empty() {
            let (group, others) = rest.split_at(self.group_length(rest));
            masks.extend(self.masks_by_tensors(group)?);
            rest = others;
        }
        Ok(masks)
    }

    /// How many of the first modules fit the budget together, at least one.
    fn group_length(&self, modules: &[(u32, usize)]) -> usize {
        let mut counters = 0;
        let fitting = modules.iter().take_while(|(_, width)| {
            counters += width.div_ceil(LANES) * self.counters.tokens();
            counters <= GROUP_COUNTERS
        });
        fitting.count().max(1)
    }

    fn mask_on_cpu(&self, module: u32, width: usize) -> Result<Mask> {
        let keep = self.counters.on_cpu(module, width, |word| u8::from(word >= self.threshold));
        let keep = Tensor::f_from_data_size(&keep, &[self.counters.tokens() as i64, width as i64], Kind::Bool)?;
        Ok(Mask { keep, scale: self.scale })
    }

    fn masks_by_tensors(&self, modules: &[(u32, usize)]) -> Result<Vec<Mask>> {
        let keep = self.counters.by_tensors(modules, |word| word.f_ge(i64::from(self.threshold)))?;
        let mut first = 0;
        let mut masks = Vec::with_capacity(modules.len());
        for (_, width) in modules {
            masks.push(Mask { keep: keep.f_narrow(1, first, *width as i64)?, scale: self.scale });
            first += (width.div_ceil(LANES) * LANES) as i64;
        }
        Ok(masks)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::Sample;

    fn pass(dropout: Dropout, update: u64, samples: &[(u32, usize)]) -> PassDropout {
        let ids = [1_u32; 64];
        let labels = [1_i32; 64];
        let samples: Vec<_> = samples
            .iter()
            .map(|(place, length)| Sample { ids: &ids[..*length], labels: &labels[..*length], place: *place, row: 0 })
            .collect();
        let batch = PackedBatch::new(&samples).unwrap();
        dropout.pass(update, &batch, Device::Cpu).unwrap().unwrap()
    }

    const DROPOUT: Dropout = Dropout { probability: 0.1, seed: 0x1234_5678_9abc_def0 };

    #[test]
    fn tensors_give_the_same_bits_as_the_cpu() {
        let pass = pass(DROPOUT, 7, &[(0, 13), (5, 40)]);
        let modules = [(0, 64), (3, 30), (u32::MAX, 7)];
        let by_tensors = pass.masks_by_tensors(&modules).unwrap();
        for ((module, width), mask) in modules.iter().zip(&by_tensors) {
            let on_cpu = pass.mask_on_cpu(*module, *width).unwrap();
            assert_eq!(on_cpu.keep.size(), [53, *width as i64]);
            assert!(on_cpu.keep.equal(&mask.keep), "module {module}");
        }
    }

    #[test]
    fn large_evaluations_are_split() {
        let pass = pass(DROPOUT, 0, &[(0, 64)]);
        let half = GROUP_COUNTERS / 64 * LANES / 2;
        assert_eq!(pass.group_length(&[(0, half), (1, half), (2, 8)]), 2);
        assert_eq!(pass.group_length(&[(0, 4 * half), (1, 8)]), 1);
        assert_eq!(pass.group_length(&[(0, 8)]), 1);
    }

    #[test]
    fn a_mask_does_not_depend_on_the_split() {
        let together = pass(DROPOUT, 3, &[(0, 20), (1, 30)]).mask_on_cpu(4, 33).unwrap();
        let alone = pass(DROPOUT, 3, &[(1, 30)]).mask_on_cpu(4, 33).unwrap();
        assert!(together.keep.narrow(0, 20, 30).equal(&alone.keep));
    }

    #[test]
    fn everything_in_the_key_changes_the_mask() {
        let mask = |dropout: Dropout, update, place, module| {
            pass(dropout, update, &[(place, 64)]).mask_on_cpu(module, 64).unwrap().keep
        };
        let reference = mask(DROPOUT, 0, 0, 0);
        let other_seed = Dropout { seed: 1, ..DROPOUT };
        for other in [mask(other_seed, 0, 0, 0), mask(DROPOUT, 1, 0, 0), mask(DROPOUT, 0, 1, 0), mask(DROPOUT, 0, 0, 1)]
        {
            assert!(!reference.equal(&other));
        }
        assert!(!reference.get(0).equal(&reference.get(1)), "positions differ");
    }

    #[test]
    fn the_share_of_kept_values_is_right() {
        let mask = pass(DROPOUT, 0, &[(0, 64), (1, 64), (2, 64)]).mask_on_cpu(0, 2048).unwrap();
        let kept = mask.keep.to_kind(Kind::Double).mean(Kind::Double).double_value(&[]);
        // 393,216 draws: a standard deviation of 0.0005.
        assert!((kept - 0.9).abs() < 0.002, "{kept}");
        assert!((mask.scale - 1.0 / 0.9).abs() < 1e-12);
    }
}
