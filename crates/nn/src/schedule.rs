//! The learning rate of every update.

/// How the learning rate falls after warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decay {
    /// On a straight line to 0.
    Linear,
    /// On half a cosine wave to 0.
    Cosine,
}

/// How long the learning rate rises from 0.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum WarmUp {
    /// A share of all updates, rounded up to whole ones.
    Ratio(f64),
    /// A number of updates.
    Steps(u64),
}

/// A learning rate over `total` updates: a linear rise, then a decay.
///
/// # Source
/// `get_linear_schedule_with_warmup` and `get_cosine_schedule_with_warmup` of Transformers.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    decay: Decay,
    peak: f64,
    warm_up: u64,
    total: u64,
}

impl Schedule {
    /// A schedule that rises to `peak`, and reaches 0 behind the last of `total` updates.
    pub fn new(decay: Decay, peak: f64, warm_up: WarmUp, total: u64) -> Self {
        let warm_up = match warm_up {
            WarmUp::Ratio(ratio) => (total as f64 * ratio).ceil() as u64,
            WarmUp::Steps(steps) => steps,
        };
        Self { decay, peak, warm_up, total }
    }

    /// Updates before the peak.
    pub fn warm_up(&self) -> u64 {
        self.warm_up
    }

    /// The learning rate of an update, counted from 0. With warm-up, update 0 has the learning rate 0.
    pub fn learning_rate(&self, update: u64) -> f64 {
        self.peak * self.multiplier(update)
    }

    fn multiplier(&self, update: u64) -> f64 {
        if update < self.warm_up {
            return update as f64 / self.warm_up as f64;
        }
        let length = self.total.saturating_sub(self.warm_up).max(1) as f64;
        match self.decay {
            Decay::Linear => self.total.saturating_sub(update) as f64 / length,
            Decay::Cosine => {
                let share = (update - self.warm_up) as f64 / length;
                (0.5 * (1.0 + (std::f64::consts::PI * share).cos())).max(0.0)
            }
        }
    }
}
