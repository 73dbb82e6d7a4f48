//! Which source comes next. Integer arithmetic on the seed and the number of the draw, without looking at any row.

use pipe_samples::choice::{below, hash};

use crate::StoppingStrategy;

/// Weights are scaled so that the largest is this.
const LARGEST_WEIGHT: f64 = (1u64 << 40) as f64;

/// How the next source is chosen.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Rule {
    /// By chance, in proportion to what each has left: every row once, each source spread over the whole.
    Spread,
    /// One after the other.
    Alternate(StoppingStrategy),
    /// By chance, in proportion to weights.
    Weighted(Vec<u64>, StoppingStrategy),
}

/// An endless, or ending, sequence of sources by index.
#[derive(Debug)]
pub(crate) struct Draws {
    rule: Rule,
    seed: u64,
    /// Number of the next draw.
    next: u64,
    /// Rows that each source gives before it has ended.
    lengths: Vec<u64>,
    /// Rows until each source ends, for the first time or again.
    left: Vec<u64>,
    ended: Vec<bool>,
    /// For [`Rule::Alternate`].
    turn: usize,
}

/// Whole numbers in proportion to `weights`, so that nothing behind this rounds.
pub(crate) fn whole_weights(weights: &[f64]) -> Vec<u64> {
    let largest = weights.iter().copied().fold(0.0, f64::max);
    // Division and multiplication are exactly rounded, so that this is the same on every machine.
    weights.iter().map(|weight| ((weight / largest * LARGEST_WEIGHT).round() as u64).max(1)).collect()
}

impl Draws {
    /// Draws among sources of these numbers of rows, of which none is 0.
    pub(crate) fn new(rule: Rule, seed: u64, lengths: Vec<u64>) -> Self {
        let (left, ended) = (lengths.clone(), vec![false; lengths.len()]);
        Self { rule, seed, next: 0, lengths, left, ended, turn: 0 }
    }

    /// How many draws there will be, where that is known before.
    pub(crate) fn total(&self) -> Option<u64> {
        let count = self.lengths.len() as u64;
        match &self.rule {
            Rule::Spread
            | Rule::Alternate(StoppingStrategy::AllExhaustedWithoutReplacement)
            | Rule::Weighted(_, StoppingStrategy::AllExhaustedWithoutReplacement) => Some(self.lengths.iter().sum()),
            Rule::Alternate(StoppingStrategy::FirstExhausted) => Some(self.lengths.iter().min()? * count),
            Rule::Alternate(StoppingStrategy::AllExhausted) => self.lengths.iter().max()?.checked_mul(count),
            Rule::Weighted(..) => None,
        }
    }

    /// Whether the source has given all its rows at least once.
    pub(crate) fn has_ended(&self, source: usize) -> bool {
        self.ended[source]
    }

    fn is_over(&self, strategy: StoppingStrategy) -> bool {
        match strategy {
            StoppingStrategy::FirstExhausted => self.ended.contains(&true),
            StoppingStrategy::AllExhausted | StoppingStrategy::AllExhaustedWithoutReplacement => {
                !self.ended.contains(&false)
            }
        }
    }

    /// One of the sources by these shares.
    fn by_shares(&mut self, shares: &[u64]) -> Option<usize> {
        let mut rest = below(hash(self.seed, self.next), shares.iter().sum());
        self.next += 1;
        shares.iter().position(|share| {
            let found = rest < *share;
            rest = rest.saturating_sub(*share);
            found
        })
    }

    fn choose(&mut self) -> Option<usize> {
        match self.rule.clone() {
            Rule::Spread => {
                // A source that has ended has nothing left.
                let shares = self.left.clone();
                self.by_shares(&shares)
            }
            Rule::Weighted(mut weights, strategy) => {
                if self.is_over(strategy) {
                    return None;
                }
                if strategy == StoppingStrategy::AllExhaustedWithoutReplacement {
                    weights
                        .iter_mut()
                        .zip(&self.ended)
                        .filter(|(_, ended)| **ended)
                        .for_each(|(weight, _)| *weight = 0);
                }
                self.by_shares(&weights)
            }
            Rule::Alternate(strategy) => {
                // A round is finished, as `interleave_datasets` does.
                let skips = strategy == StoppingStrategy::AllExhaustedWithoutReplacement;
                if self.is_over(strategy) && (skips || self.turn == 0) {
                    return None;
                }
                while skips && self.ended[self.turn] {
                    self.turn = (self.turn + 1) % self.lengths.len();
                }
                let source = self.turn;
                self.turn = (self.turn + 1) % self.lengths.len();
                Some(source)
            }
        }
    }
}

impl Iterator for Draws {
    type Item = usize;

    fn next(&mut self) -> Option<usize> {
        let source = self.choose()?;
        self.left[source] -= 1;
        if self.left[source] == 0 {
            self.ended[source] = true;
            if self.rule != Rule::Spread {
                self.left[source] = self.lengths[source];
            }
        }
        Some(source)
    }
}

#[cfg(test)]
mod tests;
