//! Samples that are too long lose tokens at one of their sides.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Sample;

/// Where tokens are taken away.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum TruncationSide {
    /// At the end.
    #[default]
    Right,
    /// At the beginning.
    Left,
}

impl Sample {
    /// Takes away what it has more than `max_length` tokens; gives their number.
    pub fn truncate(&mut self, max_length: usize, side: TruncationSide) -> usize {
        let excess = self.input_ids.len().saturating_sub(max_length);
        match side {
            TruncationSide::Right => {
                self.input_ids.truncate(max_length);
                self.labels.truncate(max_length);
            }
            TruncationSide::Left => {
                self.input_ids.drain(..excess);
                self.labels.drain(..excess);
            }
        }
        excess
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn either_side_may_go() {
        let cut = |max_length, side| {
            let mut sample = Sample { input_ids: vec![1, 2, 3], labels: vec![-100, 2, 3] };
            let lost = sample.truncate(max_length, side);
            (sample.input_ids, sample.labels, lost)
        };
        assert_eq!(cut(2, TruncationSide::Right), (vec![1, 2], vec![-100, 2], 1));
        assert_eq!(cut(2, TruncationSide::Left), (vec![2, 3], vec![2, 3], 1));
        assert_eq!(cut(0, TruncationSide::Left), (vec![], vec![], 3));
        assert_eq!(cut(3, TruncationSide::Left).2, 0);
    }
}
