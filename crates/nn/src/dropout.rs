//! Dropout of the adapters' inputs: masks are never stored, the kernels draw them from counters wherever they need them.

#![expect(non_snake_case, reason = "shape suffixes")]

use pipe_kernels::{
    ops,
    philox::{philox, split},
};
use tch::Tensor;

/// The dropout of a run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Dropout {
    /// Chance of a value to be dropped, in `[0, 1)`.
    pub(crate) probability: f64,
    pub(crate) seed: u64,
}

/// The dropout of one pass.
#[derive(Debug)]
pub(crate) struct PassDropout {
    pub(crate) masks: ops::Dropout,
    /// What kept values are multiplied by.
    pub(crate) scale: f64,
}

impl Dropout {
    /// That of a pass, all or a part of `update`, whose tokens are at these places and positions; `None` if nothing is
    /// dropped.
    pub(crate) fn pass(&self, update: u64, [places_T, positions_T]: [&Tensor; 2]) -> Option<PassDropout> {
        if self.probability <= 0.0 {
            return None;
        }
        let masks = ops::Dropout {
            key: key(self.seed, update),
            // Exact up to 2^32, and so for every probability below 1.
            threshold: (self.probability * 4_294_967_296.0).round() as u32,
            places_T: places_T.shallow_clone(),
            positions_T: positions_T.shallow_clone(),
        };
        Some(PassDropout { masks, scale: 1.0 / (1.0 - self.probability) })
    }
}

/// The key of an update: drawn from the generator itself, so that no two updates share a stream.
pub(crate) fn key(seed: u64, update: u64) -> [u32; 2] {
    let [low, high] = split(update);
    let [first, second, ..] = philox([low, high, 0, 0], split(seed));
    [first, second]
}
