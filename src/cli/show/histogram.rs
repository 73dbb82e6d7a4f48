//! How long samples are: quantiles, and a bar for each range of lengths.

use serde::Serialize;

use crate::report;

/// Most ranges.
const RANGES: usize = 12;

/// Columns of the longest bar.
const BAR: usize = 40;

/// The lengths of samples in tokens.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Lengths {
    pub(super) p50: u32,
    pub(super) p90: u32,
    pub(super) p99: u32,
    pub(super) max: u32,
    pub(super) ranges: Vec<Range>,
}

/// Samples of `first` to `last` tokens.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Range {
    pub(super) first: u32,
    pub(super) last: u32,
    pub(super) rows: u64,
}

impl Lengths {
    /// Of at least one sample.
    pub(super) fn new(mut lengths: Vec<u32>) -> Self {
        lengths.sort_unstable();
        // The nearest rank: the smallest length that so many per cent of the samples do not exceed.
        let quantile = |percent: usize| {
            let rank = (lengths.len() * percent).div_ceil(100).max(1);
            lengths.get(rank - 1).copied().unwrap_or(0)
        };
        let max = lengths.last().copied().unwrap_or(0);
        let step = step(max);
        let mut ranges: Vec<Range> = (0..=max / step)
            .map(|index| Range { first: index * step, last: (index * step).saturating_add(step - 1), rows: 0 })
            .collect();
        lengths.iter().for_each(|length| ranges[(length / step) as usize].rows += 1);
        Self { p50: quantile(50), p90: quantile(90), p99: quantile(99), max, ranges }
    }

    /// A line a range, with `max_length` at its place.
    pub(super) fn bars(&self, max_length: Option<u64>) -> String {
        let most = self.ranges.iter().map(|range| range.rows).max().unwrap_or(0).max(1);
        let digits = report::count(u64::from(self.ranges.last().map_or(0, |range| range.last))).len();
        let rows = report::count(most).len();
        let mut text = String::new();
        for Range { first, last, rows: count } in &self.ranges {
            let (from, to) = (report::count(u64::from(*first)), report::count(u64::from(*last)));
            // In eighths of a column; what is there is seen.
            let eighths = (*count as usize * BAR * 8).div_ceil(most as usize);
            let mut bar = "█".repeat(eighths / 8);
            bar.extend(["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"].get(eighths % 8).copied());
            let limit = max_length.is_some_and(|limit| (u64::from(*first)..=u64::from(*last)).contains(&limit));
            let note = if limit { format!("  max_length {}", max_length.unwrap_or_default()) } else { String::new() };
            let line = format!("  {from:>digits$} - {to:>digits$}  {:>rows$}  {bar}{note}", report::count(*count));
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

/// A round width, so that there are few ranges.
fn step(max: u32) -> u32 {
    let round = (0..9).flat_map(|power| [1, 2, 5].map(|digit| digit * 10u32.pow(power)));
    round.into_iter().find(|step| (max / step) < RANGES as u32).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_lengths_that_there_are() {
        let lengths = Lengths::new((1..=200).rev().collect());
        assert_eq!((lengths.p50, lengths.p90, lengths.p99, lengths.max), (100, 180, 198, 200));
        assert_eq!(lengths.ranges.len(), 11);
        assert_eq!(lengths.ranges[10], Range { first: 200, last: 219, rows: 1 });
        assert_eq!(lengths.ranges.iter().map(|range| range.rows).sum::<u64>(), 200);
        let one = Lengths::new(vec![7]);
        assert_eq!((one.p50, one.p99, one.max), (7, 7, 7));
        assert_eq!(Lengths::new(vec![0]).ranges.len(), 1);
        assert!(Lengths::new(vec![u32::MAX, 0]).ranges.len() <= RANGES);
    }

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let bars = Lengths::new(vec![0, 1, 1, 1, 1, 1, 1, 1, 1, 3]).bars(Some(3));
        let expected =
            format!("  0 - 0  1  █████\n  1 - 1  8  {}\n  2 - 2  0\n  3 - 3  1  █████  max_length 3\n", "█".repeat(40));
        assert_eq!(bars, expected);
    }
}
