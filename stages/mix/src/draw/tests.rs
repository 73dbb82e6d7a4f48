//! The draws beside the rules of `interleave_datasets`, and their proportions.

use StoppingStrategy::{AllExhausted, AllExhaustedWithoutReplacement, FirstExhausted};

use super::*;

fn draws(rule: Rule, seed: u64, lengths: &[u64]) -> Vec<usize> {
    Draws::new(rule, seed, lengths.to_vec()).collect()
}

fn counts(draws: &[usize], sources: usize) -> Vec<u64> {
    (0..sources).map(|source| draws.iter().filter(|drawn| **drawn == source).count() as u64).collect()
}

#[test]
fn sources_alternate_as_in_interleave_datasets() {
    assert_eq!(draws(Rule::Alternate(FirstExhausted), 1, &[2, 4, 3]), [0, 1, 2, 0, 1, 2]);
    assert_eq!(draws(Rule::Alternate(FirstExhausted), 1, &[3, 1]), [0, 1]);
    assert_eq!(draws(Rule::Alternate(AllExhausted), 1, &[1, 3]), [0, 1, 0, 1, 0, 1]);
    assert_eq!(draws(Rule::Alternate(AllExhaustedWithoutReplacement), 1, &[1, 3, 2]), [0, 1, 2, 1, 2, 1]);
    for (strategy, lengths) in [(FirstExhausted, [4, 9]), (AllExhausted, [9, 4]), (FirstExhausted, [5, 5])] {
        let draws = Draws::new(Rule::Alternate(strategy), 1, lengths.to_vec());
        assert_eq!(draws.total(), Some(draws.count() as u64), "{strategy:?} {lengths:?}");
    }
}

#[test]
fn without_weights_every_row_comes_once_and_is_spread() {
    let drawn = draws(Rule::Spread, 42, &[6000, 3000, 1000]);
    assert_eq!(counts(&drawn, 3), [6000, 3000, 1000]);
    for part in drawn.chunks(1000) {
        let counts = counts(part, 3);
        // Five standard deviations of a draw without replacement, at most.
        let bounds = [(600, 78), (300, 73), (100, 48)];
        let near = counts.iter().zip(bounds).all(|(count, (mean, bound))| count.abs_diff(mean) <= bound);
        assert!(near, "{counts:?}");
    }
}

#[test]
fn weights_are_shares_of_the_draws() {
    let rule = |strategy| Rule::Weighted(whole_weights(&[0.7, 0.2, 0.1]), strategy);
    let drawn = draws(rule(FirstExhausted), 7, &[100_000, 100_000, 10_000]);
    let counts_ = counts(&drawn, 3);
    assert!(counts_.contains(&10_000) || counts_.contains(&100_000), "{counts_:?}");
    let total = drawn.len() as f64;
    for (count, share) in counts_.iter().zip([0.7, 0.2, 0.1]) {
        // Four standard deviations of a binomial distribution.
        let bound = 4.0 * (share * (1.0 - share) * total).sqrt();
        assert!((*count as f64 - share * total).abs() < bound, "{counts_:?} of {total}");
    }
    let drawn = draws(rule(AllExhausted), 7, &[50, 50, 50]);
    let counts_ = counts(&drawn, 3);
    assert!(counts_[2] >= 50 && counts_[0] > 250, "{counts_:?}");
    assert_eq!(drawn.last(), Some(&2), "it stops with the last row of the one that ends last");
    assert_eq!(counts(&draws(rule(AllExhaustedWithoutReplacement), 7, &[5, 60, 7]), 3), [5, 60, 7]);
}

#[test]
fn a_longer_source_changes_nothing_before_the_shorter_one_ended() {
    let rule = |strategy| Rule::Weighted(whole_weights(&[1.0, 1.0]), strategy);
    for strategy in [FirstExhausted, AllExhausted, AllExhaustedWithoutReplacement] {
        let short = draws(rule(strategy), 3, &[100, 100]);
        let long = draws(rule(strategy), 3, &[100, 140]);
        let first_end = (0..short.len()).find(|end| counts(&short[..*end], 2).contains(&100)).unwrap_or(short.len());
        assert!(first_end > 150);
        assert_eq!(short[..first_end], long[..first_end]);
    }
    let (before, after) = (draws(Rule::Spread, 3, &[1000, 1000]), draws(Rule::Spread, 3, &[1000, 1010]));
    let same = before.iter().zip(&after).filter(|(before, after)| before == after).count();
    assert!(same > 1900, "{same} of 2000");
}

#[test]
fn the_draws_are_the_same_everywhere() {
    // These are part of what the kind's version stands for.
    assert_eq!(draws(Rule::Spread, 42, &[6, 3, 1]), [0, 2, 0, 0, 1, 0, 0, 1, 0, 1]);
    let weights = whole_weights(&[0.5, 0.25, 0.25]);
    assert_eq!(draws(Rule::Weighted(weights, FirstExhausted), 42, &[6, 5, 5]), [0, 2, 0, 0, 1, 0, 0, 1, 0]);
}

#[test]
fn weights_keep_their_proportions() {
    assert_eq!(whole_weights(&[3.0, 1.5, 0.75]), [1 << 40, 1 << 39, 1 << 38]);
    assert_eq!(whole_weights(&[1e300, 1e-300]), [1 << 40, 1]);
    assert_eq!(whole_weights(&[5e-324, 5e-324]), [1 << 40, 1 << 40]);
}
