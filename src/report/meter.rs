//! How fast a stage advances and when it will be done. Pure: the caller brings the clock.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// The rate is that of the last half minute: long enough to be calm, short enough to follow a change.
const WINDOW: Duration = Duration::from_secs(30);

/// Samples nearer to each other than this are one.
const SPACING: Duration = Duration::from_millis(500);

/// The progress of one unit of one stage.
#[derive(Debug, Clone)]
pub(crate) struct Meter {
    pub(crate) unit: String,
    pub(crate) done: u64,
    pub(crate) total: Option<u64>,
    latest: Instant,
    /// Where the work stood, oldest first. A resumed stage starts above zero, and that was not done now.
    samples: VecDeque<(Instant, u64)>,
}

impl Meter {
    pub(crate) fn new(unit: &str, done: u64, total: Option<u64>, now: Instant) -> Self {
        Self { unit: unit.to_owned(), done, total, latest: now, samples: VecDeque::from([(now, done)]) }
    }

    /// Notes where the work stands. Another unit, or a step back, starts anew.
    pub(crate) fn advance(&mut self, unit: &str, done: u64, total: Option<u64>, now: Instant) {
        if unit != self.unit || done < self.done {
            *self = Self::new(unit, done, total, now);
            return;
        }
        (self.done, self.total, self.latest) = (done, total, now);
        if self.samples.back().is_none_or(|(at, _)| now.duration_since(*at) >= SPACING) {
            self.samples.push_back((now, done));
        }
        // One sample older than the window stays, so that slow work has a rate at all.
        while self.samples.len() > 2 && now.duration_since(self.samples[1].0) >= WINDOW {
            self.samples.pop_front();
        }
    }

    /// Units a second, once there is something to tell.
    pub(crate) fn rate(&self) -> Option<f64> {
        let (since, from) = self.samples.front()?;
        let seconds = self.latest.duration_since(*since).as_secs_f64();
        (seconds > 0.0 && self.done > *from).then(|| (self.done - from) as f64 / seconds)
    }

    /// The time that is left at this rate; `None` at the end, and while no rate is known.
    pub(crate) fn remaining(&self) -> Option<Duration> {
        let left = self.total?.checked_sub(self.done).filter(|left| *left > 0)?;
        Duration::try_from_secs_f64(left as f64 / self.rate()?).ok()
    }

    /// Done of total, between 0 and 1.
    pub(crate) fn fraction(&self) -> Option<f64> {
        self.total.filter(|total| *total > 0).map(|total| (self.done as f64 / total as f64).min(1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resumed_stage_does_not_count_what_an_earlier_run_did() {
        let start = Instant::now();
        let mut meter = Meter::new("steps", 500, Some(1000), start);
        assert_eq!(meter.rate(), None);
        meter.advance("steps", 520, Some(1000), start + Duration::from_secs(10));
        assert_eq!(meter.rate(), Some(2.0));
        assert_eq!(meter.remaining(), Some(Duration::from_secs(240)));
    }

    #[test]
    fn the_rate_follows_a_change_of_speed() {
        let start = Instant::now();
        let mut meter = Meter::new("rows", 0, None, start);
        for second in 1..=100 {
            meter.advance("rows", second * 100, None, start + Duration::from_secs(second));
        }
        for second in 1..=40 {
            meter.advance("rows", 10_000 + second, None, start + Duration::from_secs(100 + second));
        }
        assert_eq!(meter.rate(), Some(1.0));
        assert!(meter.samples.len() < 40, "{} samples", meter.samples.len());
        assert_eq!(meter.remaining(), None);
    }

    #[test]
    fn another_unit_starts_anew() {
        let start = Instant::now();
        let mut meter = Meter::new("bytes", 0, Some(10), start);
        meter.advance("rows", 5, Some(10), start + Duration::from_secs(1));
        assert_eq!((meter.unit.as_str(), meter.rate(), meter.fraction()), ("rows", None, Some(0.5)));
    }
}
