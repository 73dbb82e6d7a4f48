//! Names of runs.

use std::{
    fmt,
    str::FromStr,
    time::{Duration, SystemTime},
};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde::{Deserialize, Serialize};

/// The name of a run: when it began, in UTC to the millisecond, and four digits for what is finer than that.
/// `20260131-174502-093-5f0c`. Their order as text is their order in time.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RunId(String);

/// Text that is no run id.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not the id of a run (like 20260131-174502-093-5f0c)")]
pub struct InvalidRunId(String);

impl RunId {
    /// Its text. Safe as the name of a file.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of a run that begins now, after the run `newest`: where the clock was set back since, time goes on from
    /// that one, so that the order of names stays the order of runs.
    pub(super) fn generate(newest: Option<&Self>) -> Self {
        let now = SystemTime::now();
        let earliest = newest.and_then(|newest| newest.time()?.checked_add(Duration::from_millis(1)));
        Self::at(earliest.map_or(now, |earliest| earliest.max(now)))
    }

    /// When the run began, to the millisecond, as its name says it. `None` if there is no such day.
    pub(super) fn time(&self) -> Option<SystemTime> {
        let (day_and_time, rest) = self.0.split_at_checked(15)?;
        let milliseconds: i32 = rest.get(1..4)?.parse().ok()?;
        let time = DateTime::strptime("%Y%m%d-%H%M%S", day_and_time).ok()?.to_zoned(TimeZone::UTC).ok()?;
        Some(SystemTime::from(time.timestamp()) + Duration::from_millis(milliseconds.unsigned_abs().into()))
    }

    fn at(now: SystemTime) -> Self {
        let nanoseconds = now.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        // What is left of the millisecond, in steps of 16 ns: ids of the same millisecond are in order too.
        let suffix = nanoseconds % 1_000_000 / 16;
        // Before 1970 or after 9999 the clock is wrong, and any time is as good.
        let time = Timestamp::try_from(now).unwrap_or_default().to_zoned(TimeZone::UTC);
        Self(format!("{}-{:03}-{suffix:04x}", time.strftime("%Y%m%d-%H%M%S"), time.millisecond()))
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for RunId {
    type Err = InvalidRunId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = |part: &str, length| part.len() == length && part.bytes().all(|byte| byte.is_ascii_digit());
        let hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        match text.split('-').collect::<Vec<_>>()[..] {
            [day, time, milliseconds, suffix]
                if digits(day, 8) && digits(time, 6) && digits(milliseconds, 3) && suffix.len() == 4 && hex(suffix) =>
            {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidRunId(text.to_owned())),
        }
    }
}

impl TryFrom<String> for RunId {
    type Error = InvalidRunId;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<RunId> for String {
    fn from(id: RunId) -> Self {
        id.0
    }
}
