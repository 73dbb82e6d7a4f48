//! Random words for the tokens and channels of a pass, from a counter-based generator: never stored, the same again
//! whenever they are asked for.
//!
//! A word is keyed by seed, update, the sample's place in the update, module, position in the sample and channel; never
//! by the row of the pass. So it does not depend on how an update is split, nor on the device.

use pipe_kernels::{
    philox::{KEY_STEPS, MULTIPLIERS, ROUNDS, philox},
    upload,
};
use tch::{Device, Kind, Tensor};

use crate::{batch::PackedBatch, dropout::key, error::Result};

/// Channels that one counter serves.
pub(crate) const LANES: usize = 4;

/// The counters of one pass.
#[derive(Debug)]
#[expect(non_snake_case, reason = "shape suffixes")]
pub(crate) struct Counters {
    key: [u32; 2],
    places: Vec<u32>,
    positions: Vec<u32>,
    places_T1: Tensor,
    positions_T1: Tensor,
}

impl Counters {
    /// Those of `batch`, which is all or a part of `update`.
    pub(crate) fn new(seed: u64, update: u64, batch: &PackedBatch, device: Device) -> Result<Self> {
        let places = batch.spans.iter().flat_map(|span| std::iter::repeat_n(i64::from(span.place), span.length));
        let column = |values: Vec<i64>| -> Result<Tensor> { Ok(upload(&values, device)?.f_unsqueeze(1)?) };
        Ok(Self {
            key: key(seed, update),
            places: places.clone().map(|place| place as u32).collect(),
            positions: batch.positions.iter().map(|position| *position as u32).collect(),
            places_T1: column(places.collect())?,
            positions_T1: column(batch.positions.clone())?,
        })
    }

    /// How many tokens the pass has.
    pub(crate) fn tokens(&self) -> usize {
        self.places.len()
    }

    /// Where the words are wanted.
    pub(crate) fn device(&self) -> Device {
        self.places_T1.device()
    }

    /// What `of` makes of the words of `width` channels of every token, token by token.
    pub(crate) fn on_cpu<V>(&self, module: u32, width: usize, of: impl Fn(u32) -> V) -> Vec<V> {
        let mut values = Vec::with_capacity(self.tokens() * width);
        for (place, position) in self.places.iter().zip(&self.positions) {
            let row_end = values.len() + width;
            for block in 0..width.div_ceil(LANES) {
                let words = philox([block as u32, *position, *place, module], self.key);
                let lanes = LANES.min(row_end - values.len());
                values.extend(words[..lanes].iter().map(|word| of(*word)));
            }
        }
        values
    }

    /// The same on the device, `[tokens, channels]`, the channels rounded up to whole counters. Philox on int64 tensors: the
    /// four words of a counter are four tensors that broadcast to `[tokens, blocks]`.
    pub(crate) fn by_tensors(
        &self,
        module: u32,
        width: usize,
        of: impl Fn(&Tensor) -> std::result::Result<Tensor, tch::TchError>,
    ) -> Result<Tensor> {
        let whole = |value: Tensor| value.f_unsqueeze(0)?.f_to(self.device());
        let counter = [
            whole(Tensor::f_arange(width.div_ceil(LANES) as i64, (Kind::Int64, Device::Cpu))?)?,
            self.positions_T1.shallow_clone(),
            self.places_T1.shallow_clone(),
            whole(Tensor::f_from_slice(&[i64::from(module)])?)?,
        ];
        let words = philox_of_tensors(counter, self.key)?;
        let values = words.iter().map(of).collect::<std::result::Result<Vec<_>, _>>()?;
        Ok(Tensor::f_stack(&values, -1)?.f_flatten(1, -1)?)
    }
}

const WORD: i64 = 0xFFFF_FFFF;

fn philox_of_tensors(mut counter: [Tensor; 4], mut key: [u32; 2]) -> Result<[Tensor; 4]> {
    for _ in 0..ROUNDS {
        let (high0, low0) = wide_product(MULTIPLIERS[0], &counter[0])?;
        let (high1, low1) = wide_product(MULTIPLIERS[1], &counter[2])?;
        let mix =
            |high: Tensor, other: &Tensor, key: u32| high.f_bitwise_xor(i64::from(key))?.f_bitwise_xor_tensor(other);
        counter = [mix(high1, &counter[1], key[0])?, low1, mix(high0, &counter[3], key[1])?, low0];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    Ok(counter)
}

/// The halves of a 64-bit product. The product may wrap into the sign; its bits are the same, and the mask removes
/// the sign that the shift copies.
fn wide_product(multiplier: u32, words: &Tensor) -> Result<(Tensor, Tensor)> {
    let product = words.f_mul_scalar(i64::from(multiplier))?;
    let high = product.f_bitwise_right_shift_tensor_scalar(32)?.f_bitwise_and_(WORD)?;
    Ok((high, product.f_bitwise_and(WORD)?))
}
