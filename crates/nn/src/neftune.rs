//! Noise on the embedding's output while training (NEFTune), never stored: the kernel draws it from counters.
//!
//! A value of a sample of `L` tokens and width `D` is uniform in `±alpha / sqrt(L D)`. Transformers takes the padded length
//! of the batch for `L`; samples are not padded here, so it is the sample's own.
//!
//! # Source
//! Jain et al., arXiv:2310.05914; `neftune_noise_alpha` of Transformers.

#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_kernels::{ops::Noise, upload};
use tch::Tensor;

use crate::{batch::PackedBatch, dropout::key, error::Result};

/// The noise of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neftune {
    /// How much; above 0.
    pub(crate) alpha: f64,
    pub(crate) seed: u64,
}

impl Neftune {
    /// The noise of `batch`, all or a part of `update`, whose tokens are at these places and positions.
    pub(crate) fn pass(
        &self,
        update: u64,
        batch: &PackedBatch,
        width: usize,
        [places_T, positions_T]: [&Tensor; 2],
    ) -> Result<Noise> {
        let bounds = batch.spans.iter().flat_map(|span| {
            let bound = (self.alpha / ((span.length * width) as f64).sqrt()) as f32;
            std::iter::repeat_n(bound, span.length)
        });
        Ok(Noise {
            key: key(self.seed, update),
            places_T: places_T.shallow_clone(),
            positions_T: positions_T.shallow_clone(),
            bounds_T: upload(&bounds.collect::<Vec<f32>>(), places_T.device())?,
        })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test may panic")]
    use pipe_kernels::ops::add_noise;
    use tch::{Device, Kind, Tensor};

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
        let batch = batch(samples);
        let h = Tensor::zeros([batch.tokens() as i64, width as i64], (Kind::Float, Device::Cpu));
        let positions: Vec<i32> = batch.positions.iter().map(|position| *position as i32).collect();
        let tokens = [Tensor::from_slice(&batch.places()), Tensor::from_slice(&positions)];
        add_noise(&h, &neftune.pass(update, &batch, width, [&tokens[0], &tokens[1]]).unwrap()).unwrap();
        h
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
}
