//! The stage beside a naive model of its rules that holds everything in memory and moves through plain lists.

use pipe_samples::choice::{choose, hash, seed_for};
use proptest::prelude::*;

use super::*;

const STRATEGIES: [Option<&str>; 4] =
    [None, Some("first_exhausted"), Some("all_exhausted"), Some("all_exhausted_without_replacement")];

/// The rows of a source as often as they come, by the words of the README.
fn rows_of(name: &str, first: u32, rows: u32, max_rows: Option<u64>, repeat: f64, seed: u64) -> Vec<u32> {
    let seed = seed_for(seed, name);
    let numbered: Vec<u32> = (0..rows).map(|row| first + row).collect();
    let pick = |from: &[u32], count: u64, purpose| -> Vec<u32> {
        let chosen = choose(seed_for(seed, purpose), from.len() as u64, count);
        chosen.into_iter().map(|at| from[at as usize]).collect()
    };
    let used = max_rows.map_or(numbered.clone(), |count| pick(&numbered, count, "max_rows"));
    let mut all = used.repeat(repeat.floor() as usize);
    let part = (repeat.fract() * used.len() as f64).round() as u64;
    all.extend(pick(&used, part.max(u64::from(repeat < 1.0)), "repeat"));
    all
}

/// Interleaves lists by a strategy, with weights or without.
fn interleave(lists: &[Vec<u32>], weights: Option<&[u32]>, strategy: Option<&str>, seed: u64) -> Vec<u32> {
    let seed = seed_for(seed, "order");
    let mut positions = vec![0; lists.len()];
    let mut mixed = Vec::new();
    let strategy = strategy.or(weights.and(Some("first_exhausted")));
    let rest = |positions: &[usize], source: usize| lists[source].len().saturating_sub(positions[source]) as u128;
    loop {
        let ended = |source: usize| positions[source] >= lists[source].len();
        let over = match strategy {
            Some("first_exhausted") => (0..lists.len()).any(ended),
            _ => (0..lists.len()).all(ended),
        };
        let without = strategy == Some("all_exhausted_without_replacement");
        let draw = mixed.len();
        let in_a_round = strategy.is_some() && !without && weights.is_none() && draw % lists.len() != 0;
        if over && !in_a_round {
            return mixed;
        }
        let shares: Vec<u128> = match (weights, strategy) {
            (Some(weights), _) => {
                let largest = u128::from(*weights.iter().max().unwrap());
                // Powers of two, so that no weight is rounded.
                let whole = weights.iter().map(|weight| (u128::from(*weight) << 40) / largest);
                whole.enumerate().map(|(source, weight)| if without && ended(source) { 0 } else { weight }).collect()
            }
            (None, None) => (0..lists.len()).map(|source| rest(&positions, source)).collect(),
            (None, Some(_)) => Vec::new(),
        };
        let source = if shares.is_empty() {
            // The one whose turn it is has been drawn least often, and stands first among those.
            let open = (0..lists.len()).filter(|source| !(without && ended(*source)));
            open.min_by_key(|source| positions[*source]).unwrap()
        } else {
            let mut at = (u128::from(hash(seed, draw as u64)) * shares.iter().sum::<u128>()) >> 64;
            let mut source = 0;
            while at >= shares[source] {
                at -= shares[source];
                source += 1;
            }
            source
        };
        mixed.push(lists[source][positions[source] % lists[source].len()]);
        positions[source] += 1;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_rows_are_those_of_the_naive_model(
        sources in prop::collection::vec((1u32..40, prop::option::of(1u64..50), 1u32..14, 0u32..4), 1..5),
        weighted in any::<bool>(),
        strategy in prop::sample::select(&STRATEGIES[..]),
        seed in any::<u64>(),
    ) {
        let names = ["a", "b", "中文", "d"];
        let weights: Vec<u32> = sources.iter().map(|(.., power)| 1 << power).collect();
        let mut config = json!({ "seed": seed, "stopping_strategy": strategy, "sources": {} });
        let (mut counts, mut lists) = (Vec::new(), Vec::new());
        // In the order of names, which is that of the stage: `d` stands before `中文`.
        let mut order: Vec<usize> = (0..sources.len()).collect();
        order.sort_by_key(|index| names[*index]);
        let mut in_order = Vec::new();
        for (place, index) in order.into_iter().enumerate() {
            let (rows, max_rows, quarters, _) = sources[index];
            let repeat = f64::from(quarters) / 4.0;
            config["sources"][names[index]] = json!({ "max_rows": max_rows, "repeat": repeat });
            if weighted {
                config["sources"][names[index]]["weight"] = json!(weights[index]);
            }
            counts.push((names[index], rows));
            in_order.push(weights[index]);
            lists.push(rows_of(names[index], place as u32 * 10_000, rows, max_rows, repeat, seed));
        }
        let mixed = mix(&counts, config).unwrap();
        let expected = interleave(&lists, weighted.then_some(&in_order[..]), strategy, seed);
        prop_assert_eq!(&mixed.rows, &expected);
        let figure = |name: &str, what: &str| mixed.figures[format!("{name}.{what}")].as_u64().unwrap();
        let sum = |what: &str| counts.iter().map(|(name, _)| figure(name, what)).sum::<u64>();
        prop_assert_eq!(sum("rows_taken"), expected.len() as u64);
        prop_assert_eq!(sum("tokens_taken"), mixed.figures["tokens"].as_u64().unwrap());
        let different: std::collections::BTreeSet<u32> = expected.iter().copied().collect();
        prop_assert_eq!(sum("rows_repeated"), (expected.len() - different.len()) as u64);
    }
}
