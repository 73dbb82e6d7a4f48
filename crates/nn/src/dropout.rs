//! Dropout of the adapters' inputs: masks are never stored, the kernels draw them from counters wherever they need them.

use pipe_kernels::{
    ops,
    philox::{philox, split},
    upload,
};
use tch::Device;

use crate::{batch::PackedBatch, error::Result};

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
    /// That of `batch`, which is all or a part of `update`; `None` if nothing is dropped.
    pub(crate) fn pass(&self, update: u64, batch: &PackedBatch, device: Device) -> Result<Option<PassDropout>> {
        if self.probability <= 0.0 {
            return Ok(None);
        }
        let places = batch.spans.iter().flat_map(|span| std::iter::repeat_n(span.place as i32, span.length));
        let places: Vec<i32> = places.collect();
        let positions: Vec<i32> = batch.positions.iter().map(|position| *position as i32).collect();
        let masks = ops::Dropout {
            key: key(self.seed, update),
            // Exact up to 2^32, and so for every probability below 1.
            threshold: (self.probability * 4_294_967_296.0).round() as u32,
            places_T: upload(&places, device)?,
            positions_T: upload(&positions, device)?,
        };
        Ok(Some(PassDropout { masks, scale: 1.0 / (1.0 - self.probability) }))
    }
}

/// The key of an update: drawn from the generator itself, so that no two updates share a stream.
pub(crate) fn key(seed: u64, update: u64) -> [u32; 2] {
    let [low, high] = split(update);
    let [first, second, ..] = philox([low, high, 0, 0], split(seed));
    [first, second]
}
