//! When to try again, and when to give up.

use std::time::Duration;

use crate::{Error, Tuning};

/// The failed attempts of one piece of work, in a row.
pub(crate) struct Patience<'a> {
    tuning: &'a Tuning,
    failures: u32,
}

impl<'a> Patience<'a> {
    pub(crate) fn new(tuning: &'a Tuning) -> Self {
        Self { tuning, failures: 0 }
    }

    /// Something new came: what failed before does not count.
    pub(crate) fn renew(&mut self) {
        self.failures = 0;
    }

    /// Waits after a failed attempt at `what`.
    ///
    /// # Errors
    /// If trying again cannot help, or was tried often enough.
    pub(crate) async fn after(&mut self, error: Error, what: &str) -> Result<(), Error> {
        if !error.is_transient() {
            return Err(error);
        }
        self.failures += 1;
        let asked = error.retry_after();
        if self.failures >= self.tuning.attempts || asked.is_some_and(|wait| wait > self.tuning.longest_asked_wait) {
            return Err(Error::Attempts { path: what.to_owned(), attempts: self.failures, source: Box::new(error) });
        }
        tokio::time::sleep(self.wait(asked, fastrand::f64())).await;
        Ok(())
    }

    /// Doubles with every failure. `chance`, from 0 to 1, keeps those who failed together from coming back together.
    fn wait(&self, asked: Option<Duration>, chance: f64) -> Duration {
        let doubled = self.tuning.first_wait.saturating_mul(1_u32.checked_shl(self.failures - 1).unwrap_or(u32::MAX));
        let own = doubled.min(self.tuning.longest_wait).mul_f64(0.5 + chance / 2.0);
        // Not before the server says, and not all at that very moment.
        asked.map_or(own, |asked| asked + own.min(self.tuning.first_wait).mul_f64(chance))
    }
}

/// Reads `Retry-After`: seconds, or a date.
pub(crate) fn retry_after(value: &str, now: std::time::SystemTime) -> Option<Duration> {
    if let Ok(seconds) = value.trim().parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value.trim()).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_bound_and_vary() {
        let tuning = Tuning::default();
        let wait = |failures, asked: Option<u64>, chance| {
            Patience { tuning: &tuning, failures }.wait(asked.map(Duration::from_secs), chance).as_secs_f64()
        };
        assert_eq!([1, 2, 3, 40].map(|failures| wait(failures, None, 1.0)), [0.5, 1.0, 2.0, 30.0]);
        assert_eq!(wait(3, None, 0.0), 1.0);
        assert_eq!([wait(1, Some(7), 0.0), wait(1, Some(7), 1.0)], [7.0, 7.5]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Tue, 24 Nov 2026 16:00:00 GMT").unwrap();
        assert_eq!(retry_after(" 12 ", now), Some(Duration::from_secs(12)));
        assert_eq!(retry_after("Tue, 24 Nov 2026 16:01:30 GMT", now), Some(Duration::from_secs(90)));
        assert_eq!(retry_after("Tue, 24 Nov 2026 15:00:00 GMT", now), Some(Duration::ZERO));
        assert_eq!(retry_after("soon", now), None);
    }
}
