//! Near-duplicates: MinHash finds candidates, the exact Jaccard similarity decides.
//!
//! A sample is the set of its n-grams of token ids, each hashed to 32 bits. Candidates for it are the kept samples that
//! agree with it on all rows of a band of the MinHash signature. All is integer arithmetic on the seed and the ids: the
//! same on every machine and for any number of threads.
//!
//! # Source
//! Broder, "On the resemblance and containment of documents", SEQUENCES 1997; Indyk and Motwani, "Approximate nearest
//! neighbors", STOC 1998; for the hash functions, Dietzfelbinger, "Universal hashing and k-wise independent random
//! variables via integer arithmetic without primes", STACS 1996.

use std::collections::HashMap;

use pipe_samples::choice::{hash, seed_for};

use crate::config::NearDedup;

/// Of pairs exactly as similar as the threshold, at least this share become candidates; of more similar ones, more.
const RECALL_AT_THRESHOLD: f64 = 0.99;

/// No entry.
const NONE: u32 = u32::MAX;

/// Makes [`Sketch`]es. Shared between threads.
pub(crate) struct Sketcher {
    ngram: usize,
    seed: u64,
    /// Factor and summand of each hash function.
    functions: Vec<(u64, u64)>,
    rows: usize,
}

/// What is compared of a sample.
pub(crate) struct Sketch {
    /// Hashes of its n-grams, ascending, without repetition.
    grams: Vec<u32>,
    /// One number a band.
    bands: Vec<u64>,
}

impl Sketcher {
    pub(crate) fn new(config: &NearDedup) -> Self {
        let seed = seed_for(config.seed, "near_dedup");
        let rows = rows_a_band(config.threshold, config.num_perm);
        let functions = (0..(config.num_perm / rows * rows) as u64).map(|index| {
            // Odd factors lose nothing.
            (hash(seed, 2 * index) | 1, hash(seed, 2 * index + 1))
        });
        Self { ngram: config.ngram, seed, functions: functions.collect(), rows }
    }

    pub(crate) fn sketch(&self, input_ids: &[u32]) -> Sketch {
        let mut grams: Vec<u32> = if input_ids.len() <= self.ngram {
            vec![self.gram(input_ids)]
        } else {
            input_ids.windows(self.ngram).map(|gram| self.gram(gram)).collect()
        };
        grams.sort_unstable();
        grams.dedup();
        let signature: Vec<u32> =
            self.functions.iter().map(|(factor, summand)| least(&grams, *factor, *summand)).collect();
        let bands = signature.chunks_exact(self.rows).zip(0u64..);
        let bands = bands.map(|(rows, band)| rows.iter().fold(band, |key, row| hash(key, u64::from(*row)))).collect();
        Sketch { grams, bands }
    }

    fn gram(&self, ids: &[u32]) -> u32 {
        (ids.iter().fold(self.seed, |state, id| hash(state, u64::from(*id))) >> 32) as u32
    }
}

/// The least value of a hash function over some n-grams: multiply, add, take the upper half.
fn least(grams: &[u32], factor: u64, summand: u64) -> u32 {
    let value = |gram: &u32| (factor.wrapping_mul(u64::from(*gram)).wrapping_add(summand) >> 32) as u32;
    grams.iter().map(value).fold(u32::MAX, u32::min)
}

/// The most rows a band may have: more make fewer candidates, and miss more pairs.
fn rows_a_band(threshold: f64, num_perm: usize) -> usize {
    let misses = |rows: usize| {
        // By multiplication: the library's power may differ between machines.
        let agrees = (0..rows).fold(1.0, |product, _| product * threshold);
        (0..num_perm / rows).fold(1.0, |product, _| product * (1.0 - agrees))
    };
    (1..=num_perm).rev().find(|rows| 1.0 - misses(*rows) >= RECALL_AT_THRESHOLD).unwrap_or(1)
}

/// The kept samples, and which of them were found again.
pub(crate) struct Index {
    threshold: f64,
    /// For each kept sample, its row in the input, its n-grams, and how many were dropped for it.
    kept: Vec<(u64, Vec<u32>, u64)>,
    /// By the key of a band, the entry that was added last. Sample `k` has an entry a band, from `k * bands` on.
    last: HashMap<u64, u32>,
    /// For each entry, the one with the same key before it.
    before: Vec<u32>,
    bands: usize,
}

/// A kept sample that another one resembles.
#[derive(Debug, PartialEq)]
pub(crate) struct Found {
    /// Its row in the input.
    pub(crate) row: u64,
    /// The exact Jaccard similarity.
    pub(crate) similarity: f64,
}

/// What was found in all.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Clusters {
    /// Kept samples for which others were dropped.
    pub(crate) count: u64,
    /// Samples of the largest, the kept one included.
    pub(crate) largest: u64,
}

impl Index {
    pub(crate) fn new(threshold: f64, sketcher: &Sketcher) -> Self {
        let bands = sketcher.functions.len() / sketcher.rows;
        Self { threshold, kept: Vec::new(), last: HashMap::new(), before: Vec::new(), bands }
    }

    /// The first kept sample that is nearly the same; otherwise the sample is kept from now on.
    pub(crate) fn find_or_keep(&mut self, row: u64, sketch: Sketch) -> Option<Found> {
        let found = self.find(&sketch);
        match found {
            Some((kept, similarity)) => {
                self.kept[kept].2 += 1;
                Some(Found { row: self.kept[kept].0, similarity })
            }
            None => {
                for key in sketch.bands {
                    let entry = self.before.len() as u32;
                    self.before.push(self.last.insert(key, entry).unwrap_or(NONE));
                }
                self.kept.push((row, sketch.grams, 0));
                None
            }
        }
    }

    fn find(&self, sketch: &Sketch) -> Option<(usize, f64)> {
        let mut candidates = Vec::new();
        for key in &sketch.bands {
            let mut entry = self.last.get(key).copied().unwrap_or(NONE);
            while entry != NONE {
                candidates.push(entry as usize / self.bands);
                entry = self.before[entry as usize];
            }
        }
        candidates.sort_unstable();
        candidates.dedup();
        candidates.into_iter().find_map(|kept| {
            let similarity = jaccard(&self.kept[kept].1, &sketch.grams, self.threshold)?;
            Some((kept, similarity))
        })
    }

    pub(crate) fn clusters(&self) -> Clusters {
        let dropped = self.kept.iter().map(|(.., dropped)| *dropped).filter(|dropped| *dropped > 0);
        Clusters { count: dropped.clone().count() as u64, largest: dropped.max().map_or(0, |dropped| dropped + 1) }
    }
}

/// The Jaccard similarity of two sets if it reaches the threshold.
fn jaccard(a: &[u32], b: &[u32], threshold: f64) -> Option<f64> {
    let (small, large) = if a.len() < b.len() { (a, b) } else { (b, a) };
    // Divided, as below: rounding must not keep a pair from being compared.
    if (small.len() as f64 / large.len() as f64) < threshold {
        return None;
    }
    let (mut common, mut at) = (0usize, 0);
    for gram in small {
        while at < large.len() && large[at] < *gram {
            at += 1;
        }
        common += usize::from(at < large.len() && large[at] == *gram);
    }
    let similarity = common as f64 / (a.len() + b.len() - common) as f64;
    (similarity >= threshold).then_some(similarity)
}

#[cfg(test)]
mod tests;
