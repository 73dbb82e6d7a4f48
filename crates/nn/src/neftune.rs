//! Noise on the embedding's output while training (NEFTune), drawn from the [`Counters`] of the pass.
//!
//! A value of a sample of `L` tokens and width `D` is uniform in `±alpha / sqrt(L D)`. Transformers takes the padded length
//! of the batch for `L`; samples are not padded here, so it is the sample's own.
//!
//! # Source
//! Jain et al., arXiv:2310.05914; `neftune_noise_alpha` of Transformers.
#![expect(non_snake_case, reason = "shape suffixes: T tokens, D width of the residual stream")]

use tch::{Device, Kind, Tensor};

use crate::{batch::PackedBatch, counters::Counters, error::Result};

/// No linear layer has this number. Part of what a seed means.
const MODULE: u32 = u32::MAX;

/// Of a word, as many bits as float32 holds exactly: a value is the same wherever it is computed.
const BITS: u32 = 24;

/// The noise of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neftune {
    /// How much; above 0.
    pub(crate) alpha: f64,
    pub(crate) seed: u64,
}

impl Neftune {
    /// The noise of one pass, `[T, D]`, float32.
    pub(crate) fn noise(&self, update: u64, batch: &PackedBatch, width: usize, device: Device) -> Result<Tensor> {
        let counters = Counters::new(self.seed, update, batch, device)?;
        let unit_TD = if device == Device::Cpu { on_cpu(&counters, width)? } else { by_tensors(&counters, width)? };
        let bounds = batch.spans.iter().flat_map(|span| {
            let bound = (self.alpha / ((span.length * width) as f64).sqrt()) as f32;
            std::iter::repeat_n(bound, span.length)
        });
        let bounds_T1 = Tensor::f_from_slice(&bounds.collect::<Vec<f32>>())?.f_unsqueeze(1)?.f_to(device)?;
        Ok(unit_TD.f_mul(&bounds_T1)?)
    }
}

/// Values in `[-1, 1)`, `[T, D]`.
fn on_cpu(counters: &Counters, width: usize) -> Result<Tensor> {
    let unit = |word: u32| (word >> (32 - BITS)) as f32 * STEP as f32 - 1.0;
    Ok(Tensor::f_from_slice(&counters.on_cpu(MODULE, width, unit))?.f_view([counters.tokens() as i64, width as i64])?)
}

/// The same of tensors.
fn by_tensors(counters: &Counters, width: usize) -> Result<Tensor> {
    let unit = |word: &Tensor| {
        let bits = word.f_bitwise_right_shift_tensor_scalar(i64::from(32 - BITS))?.f_to_kind(Kind::Float)?;
        bits.f_mul_scalar(STEP)?.f_sub_scalar(1.0)
    };
    Ok(counters.by_tensors(MODULE, width, unit)?.f_narrow(1, 0, width as i64)?)
}

/// Between two values.
const STEP: f64 = 2.0 / (1_u64 << BITS) as f64;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use super::*;
    use crate::Sample;

    const NEFTUNE: Neftune = Neftune { alpha: 5.0, seed: 0x1234_5678_9abc_def0 };

    fn batch(samples: &[(u32, usize)]) -> PackedBatch {
        let ids = [1_u32; 400];
        let labels = [1_i32; 400];
        let samples: Vec<_> = samples
            .iter()
            .map(|(place, length)| Sample { ids: &ids[..*length], labels: &labels[..*length], place: *place, row: 0 })
            .collect();
        PackedBatch::new(&samples).unwrap()
    }

    fn noise(neftune: Neftune, update: u64, samples: &[(u32, usize)], width: usize) -> Tensor {
        neftune.noise(update, &batch(samples), width, Device::Cpu).unwrap()
    }

    #[test]
    fn it_is_uniform_within_the_bound_of_each_sample() {
        let both = noise(NEFTUNE, 3, &[(0, 100), (1, 400)], 256);
        for (first, length) in [(0, 100), (100, 400)] {
            let bound = 5.0 / f64::from(length * 256).sqrt();
            let values = both.narrow(0, first, length.into()).to_kind(Kind::Double);
            assert!(values.abs().max().double_value(&[]) <= bound * (1.0 + 1e-6));
            assert!(values.abs().max().double_value(&[]) > bound * 0.999);
            let deviation = values.std(false).double_value(&[]);
            // Of 25,600 values at least: a standard error of 0.3 %.
            assert!((deviation / (bound / 3_f64.sqrt()) - 1.0).abs() < 0.015, "{deviation} within {bound}");
            let mean = values.mean(Kind::Double).double_value(&[]);
            assert!(mean.abs() < bound * 0.02, "{mean} within {bound}");
        }
    }

    #[test]
    fn it_depends_on_seed_update_and_place_and_not_on_the_split() {
        let reference = noise(NEFTUNE, 0, &[(0, 20), (1, 30)], 33);
        assert!(reference.narrow(0, 20, 30).equal(&noise(NEFTUNE, 0, &[(1, 30)], 33)), "alone or with others");
        let other_seed = Neftune { seed: 1, ..NEFTUNE };
        for other in [
            noise(other_seed, 0, &[(0, 20), (1, 30)], 33),
            noise(NEFTUNE, 1, &[(0, 20), (1, 30)], 33),
            noise(NEFTUNE, 0, &[(2, 20), (1, 30)], 33),
        ] {
            assert!(!reference.equal(&other));
        }
    }

    #[test]
    fn tensors_give_the_same_bits_as_the_cpu() {
        let batch = batch(&[(0, 13), (5, 40)]);
        let counters = Counters::new(7, 2, &batch, Device::Cpu).unwrap();
        assert!(on_cpu(&counters, 30).unwrap().equal(&by_tensors(&counters, 30).unwrap()));
    }
}
