//! Which samples each update sees, in which order.
//!
//! The order of an epoch is that of accelerate's `SeedableRandomSampler`: PyTorch's `randperm` on a CPU generator that
//! is seeded with `seed + epoch`. It is computed here, from the seed alone, so that no global generator is touched and
//! any update can be asked for without those before it.

/// PyTorch changes its algorithm at this number of samples.
const MOST_SAMPLES: u32 = u32::MAX / 20;

/// Cuts epochs into updates. An update never crosses an epoch; the last one of an epoch may be shorter.
#[derive(Debug, Clone)]
pub struct Sampler {
    samples: u32,
    per_update: u32,
    seed: Option<u64>,
    epoch: Option<(u64, Vec<u32>)>,
}

/// A number of samples that cannot be sampled.
#[derive(Debug, thiserror::Error)]
#[error("there are {samples} samples; training takes from 1 to {MOST_SAMPLES}")]
pub struct SampleCountError {
    samples: usize,
}

impl Sampler {
    /// A sampler of `samples` samples, `per_update` (at least one is taken) an update. `seed` shuffles every epoch in
    /// its own way; `None` keeps the order.
    ///
    /// # Errors
    /// If there are no samples, or more than 2^32 / 20.
    pub fn new(samples: usize, per_update: u64, seed: Option<u64>) -> Result<Self, SampleCountError> {
        let count = u32::try_from(samples).ok().filter(|count| (1..=MOST_SAMPLES).contains(count));
        let count = count.ok_or(SampleCountError { samples })?;
        let per_update = u32::try_from(per_update).unwrap_or(u32::MAX).clamp(1, count);
        Ok(Self { samples: count, per_update, seed, epoch: None })
    }

    /// Updates in an epoch.
    pub fn updates_per_epoch(&self) -> u64 {
        u64::from(self.samples.div_ceil(self.per_update))
    }

    /// Updates in `epochs` epochs, rounded up to whole ones.
    pub fn updates_in(&self, epochs: f64) -> u64 {
        (epochs * self.updates_per_epoch() as f64).ceil() as u64
    }

    /// The rows of an update's samples, both counted from 0.
    pub fn rows(&mut self, update: u64) -> &[u32] {
        let epoch = update / self.updates_per_epoch();
        if self.epoch.as_ref().is_none_or(|(current, _)| *current != epoch) {
            let order = match self.seed {
                Some(seed) => permutation(self.samples, seed.wrapping_add(epoch)),
                None => (0..self.samples).collect(),
            };
            self.epoch = Some((epoch, order));
        }
        let order = self.epoch.as_ref().map_or(&[][..], |(_, order)| order);
        // Less than `samples`, which is a u32.
        let start = (update % self.updates_per_epoch()) as usize * self.per_update as usize;
        &order[start..order.len().min(start + self.per_update as usize)]
    }
}

/// `torch.randperm(count, generator=torch.Generator().manual_seed(seed))`: a Fisher-Yates shuffle from the front.
fn permutation(count: u32, seed: u64) -> Vec<u32> {
    let mut generator = MersenneTwister::new(seed);
    let mut order: Vec<u32> = (0..count).collect();
    for place in 0..count.saturating_sub(1) {
        let other = place + generator.next_u32() % (count - place);
        order.swap(place as usize, other as usize);
    }
    order
}

/// MT19937, PyTorch's generator on the CPU.
///
/// # Source
/// Matsumoto and Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998); seeding as in their `init_genrand` of 2002.
struct MersenneTwister {
    state: [u32; Self::WORDS],
    next: usize,
}

impl MersenneTwister {
    const WORDS: usize = 624;
    const MIDDLE: usize = 397;

    /// Seeds from the low 32 bits, as PyTorch does.
    fn new(seed: u64) -> Self {
        let mut state = [0_u32; Self::WORDS];
        state[0] = (seed & u64::from(u32::MAX)) as u32;
        for index in 1..Self::WORDS {
            let before = state[index - 1];
            state[index] = 1_812_433_253_u32.wrapping_mul(before ^ (before >> 30)).wrapping_add(index as u32);
        }
        Self { state, next: Self::WORDS }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == Self::WORDS {
            self.refill();
        }
        let mut word = self.state[self.next];
        self.next += 1;
        word ^= word >> 11;
        word ^= (word << 7) & 0x9d2c_5680;
        word ^= (word << 15) & 0xefc6_0000;
        word ^ (word >> 18)
    }

    fn refill(&mut self) {
        for index in 0..Self::WORDS {
            let high = self.state[index] & 0x8000_0000;
            let low = self.state[(index + 1) % Self::WORDS] & 0x7fff_ffff;
            let mixed = high | low;
            let twist = if mixed & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + Self::MIDDLE) % Self::WORDS] ^ (mixed >> 1) ^ twist;
        }
        self.next = 0;
    }
}
