//! What is found, beside the exact similarity of all pairs.

use std::collections::BTreeSet;

use super::*;

/// A sample of made-up ids, and copies of it in which some ids are others.
fn generated() -> Vec<Vec<u32>> {
    let mut samples = Vec::new();
    for base in 0..120u64 {
        let length = 30 + hash(1, base) % 200;
        let ids: Vec<u32> = (0..length).map(|at| (hash(base, at) % 5000) as u32).collect();
        for copy in 0..4u64 {
            let mut changed = ids.clone();
            // From none to about one in twelve: similarities from 1 down to 0.5.
            for (at, id) in (0u64..).zip(&mut changed) {
                if hash(1000 + base * 4 + copy, at) % 100 < copy * 2 + base % 3 {
                    *id = 7777;
                }
            }
            samples.push(changed);
        }
    }
    samples
}

fn grams(ids: &[u32], ngram: usize) -> BTreeSet<&[u32]> {
    if ids.len() <= ngram { [ids].into() } else { ids.windows(ngram).collect() }
}

fn exact(a: &[u32], b: &[u32], ngram: usize) -> f64 {
    let (a, b) = (grams(a, ngram), grams(b, ngram));
    a.intersection(&b).count() as f64 / a.union(&b).count() as f64
}

#[test]
fn pairs_are_found_as_all_pairs_are_compared() {
    let samples = generated();
    for threshold in [0.5, 0.7, 0.8, 0.95] {
        let config = NearDedup { threshold, ..NearDedup::default() };
        let sketcher = Sketcher::new(&config);
        let mut index = Index::new(threshold, &sketcher);
        let (mut kept, mut found, mut missed) = (Vec::new(), 0u32, 0u32);
        for (row, ids) in samples.iter().enumerate() {
            // The index knows the same kept samples as the comparison of all pairs.
            let first =
                kept.iter().copied().find(|other: &usize| exact(&samples[*other], ids, config.ngram) >= threshold);
            let answer = index.find_or_keep(row as u64, sketcher.sketch(ids));
            match (&answer, first) {
                (Some(answer), Some(first)) => {
                    let similarity = exact(&samples[answer.row as usize], ids, config.ngram);
                    assert!((answer.similarity - similarity).abs() < 1e-12 && similarity >= threshold);
                    found += 1;
                    missed += u32::from(answer.row != first as u64);
                }
                (None, Some(_)) => missed += 1,
                (Some(answer), None) => panic!("{answer:?} is no near-duplicate of {row}"),
                (None, None) => {}
            }
            if answer.is_none() {
                kept.push(row);
            }
        }
        let recall = f64::from(found) / f64::from(found + missed);
        assert!(found > 5, "{threshold}: {found}");
        assert!(recall >= 0.99, "threshold {threshold}: {missed} of {} missed", found + missed);
        let dropped: u64 = index.kept.iter().map(|(.., dropped)| dropped).sum();
        assert_eq!((dropped, u64::from(found)), ((samples.len() - kept.len()) as u64, dropped));
    }
}

#[test]
fn the_signature_estimates_the_similarity() {
    // The share of equal rows has the mean s and the standard deviation sqrt(s (1 - s) / rows).
    let sketcher = Sketcher::new(&NearDedup { num_perm: 1024, threshold: 0.5, ..NearDedup::default() });
    let samples = generated();
    let signature = |ids: &[u32]| -> Vec<u32> {
        let grams = sketcher.sketch(ids).grams;
        sketcher.functions.iter().map(|(factor, summand)| least(&grams, *factor, *summand)).collect()
    };
    let mut worst: f64 = 0.0;
    for pair in samples.chunks(4) {
        let (a, b) = (signature(&pair[0]), signature(&pair[2]));
        let equal = a.iter().zip(&b).filter(|(a, b)| a == b).count() as f64 / a.len() as f64;
        let exact = exact(&pair[0], &pair[2], 5);
        let deviation = (exact * (1.0 - exact) / a.len() as f64).sqrt().max(1e-9);
        worst = worst.max((equal - exact).abs() / deviation);
    }
    assert!(worst < 4.5, "{worst} standard deviations");
}

#[test]
fn bands_find_pairs_at_the_threshold() {
    assert_eq!([0.5, 0.7, 0.8, 0.9, 1.0].map(|threshold| rows_a_band(threshold, 128)), [3, 4, 6, 10, 128]);
    assert_eq!(rows_a_band(0.1, 8), 1, "too few permutations for so low a threshold");
}

#[test]
fn the_sketch_is_the_same_everywhere() {
    // Part of what the kind's version stands for.
    let sketch = Sketcher::new(&NearDedup::default()).sketch(&(0..40).collect::<Vec<_>>());
    assert_eq!(
        (sketch.grams.len(), sketch.grams[0], sketch.bands.len(), sketch.bands[0]),
        (36, 204_402_564, 21, 9_229_647_162_984_594_602)
    );
}

#[test]
fn clusters_are_counted() {
    let sketcher = Sketcher::new(&NearDedup::default());
    let mut index = Index::new(0.8, &sketcher);
    let sample = |first: u32| (first..first + 50).collect::<Vec<_>>();
    let found: Vec<Option<u64>> = [0, 100, 0, 200, 100, 0, 1, 300]
        .iter()
        .zip(0..)
        .map(|(first, row)| index.find_or_keep(row, sketcher.sketch(&sample(*first))).map(|found| found.row))
        .collect();
    assert_eq!(found, [None, None, Some(0), None, Some(1), Some(0), Some(0), None]);
    assert_eq!(index.clusters(), Clusters { count: 2, largest: 4 });
    assert_eq!(index.find_or_keep(9, sketcher.sketch(&[])), None);
    assert_eq!(index.find_or_keep(10, sketcher.sketch(&[1, 2])), None);
    assert_eq!(index.find_or_keep(11, sketcher.sketch(&[1, 2])), Some(Found { row: 10, similarity: 1.0 }));
}

#[test]
fn a_sample_is_found_behind_others_of_the_same_band() {
    // One band of one row, so that every part of the first sample that holds its least n-gram has the same key.
    let config = NearDedup { num_perm: 1, ..NearDedup::default() };
    let sketcher = Sketcher::new(&config);
    let mut index = Index::new(config.threshold, &sketcher);
    let whole: Vec<u32> = (0..50).collect();
    assert_eq!(index.find_or_keep(0, sketcher.sketch(&whole)), None);
    let parts = (0..=40).step_by(3).zip(1..);
    parts.for_each(|(at, row)| assert_eq!(index.find_or_keep(row, sketcher.sketch(&whole[at..at + 10])), None));
    assert_eq!(index.find_or_keep(99, sketcher.sketch(&whole)), Some(Found { row: 0, similarity: 1.0 }));
}

#[test]
fn pairs_just_at_the_threshold_count() {
    // As products these round upwards: 0.55 * 20 is more than 11.
    for (threshold, common, all) in [(0.55, 11, 20), (0.7, 7, 10), (0.8, 4, 5), (0.35, 7, 20), (0.95, 19, 20)] {
        let (a, b): (Vec<u32>, Vec<u32>) = ((0..common).collect(), (0..all).collect());
        assert_eq!(jaccard(&a, &b, threshold), Some(threshold), "{common} of {all}");
        assert_eq!(jaccard(&b, &a[1..], threshold), None, "{} of {all}", common - 1);
    }
}
