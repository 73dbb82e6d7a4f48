//! Seeded choices of rows: integer arithmetic on seed and row number alone, so the same on every machine, and the same
//! for a row whatever else there is.

use std::collections::BinaryHeap;

/// A number for `row` that looks random: output `row` of the generator SplitMix64 after a scrambled seed.
///
/// # Source
/// Steele, Lea and Flood, "Fast Splittable Pseudorandom Number Generators", OOPSLA 2014.
pub fn hash(seed: u64, row: u64) -> u64 {
    const GOLDEN_GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;
    let start = mix(seed.wrapping_add(GOLDEN_GAMMA));
    mix(start.wrapping_add(row.wrapping_add(1).wrapping_mul(GOLDEN_GAMMA)))
}

/// The seed of one purpose among several that share a seed: other names give other choices.
pub fn seed_for(seed: u64, purpose: &str) -> u64 {
    let length = hash(seed, purpose.len() as u64);
    purpose.as_bytes().chunks(8).fold(length, |seed, chunk| {
        let mut bytes = [0; 8];
        bytes[..chunk.len()].copy_from_slice(chunk);
        hash(seed, u64::from_le_bytes(bytes))
    })
}

/// A number below `bound` made from one that looks random; 0 if `bound` is.
pub fn below(random: u64, bound: u64) -> u64 {
    // The upper half of the product, which is less than `bound`.
    ((u128::from(random) * u128::from(bound)) >> 64) as u64
}

/// `count` of the rows `0..rows`, ascending: those of the smallest hashes. Rows added at the end move few of the others
/// in or out. Holds 16 bytes a row that is chosen.
pub fn choose(seed: u64, rows: u64, count: u64) -> Vec<u64> {
    let count = usize::try_from(count.min(rows)).unwrap_or(usize::MAX);
    let mut smallest = BinaryHeap::with_capacity(count);
    for ranked in (0..rows).map(|row| (hash(seed, row), row)) {
        if smallest.len() < count {
            smallest.push(ranked);
        } else if let Some(mut largest) = smallest.peek_mut()
            && ranked < *largest
        {
            *largest = ranked;
        }
    }
    let mut chosen: Vec<u64> = smallest.into_iter().map(|(_, row)| row).collect();
    chosen.sort_unstable();
    chosen
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_smallest_hashes_are_chosen() {
        for (rows, count) in [(0, 0), (1, 0), (1, 1), (50, 7), (50, 50), (3, 9)] {
            let mut ranked: Vec<u64> = (0..rows).collect();
            ranked.sort_by_key(|row| hash(3, *row));
            ranked.truncate(count as usize);
            ranked.sort_unstable();
            assert_eq!(choose(3, rows, count), ranked, "{count} of {rows}");
        }
    }

    #[test]
    fn numbers_below_a_bound_reach_all_of_it() {
        assert_eq!(
            [below(0, 10), below(u64::MAX, 10), below(u64::MAX, u64::MAX), below(5, 0)],
            [0, 9, u64::MAX - 1, 0]
        );
        let mut counts = [0; 10];
        (0..10_000).for_each(|row| counts[below(hash(1, row), 10) as usize] += 1);
        assert!(counts.iter().all(|count| (900..1100).contains(count)), "{counts:?}");
    }

    #[test]
    fn every_purpose_has_a_seed_of_its_own() {
        let purposes = ["", "a", "b", "a\0", "中文", "abcdefgh", "abcdefgh\0", "abcdefghi", "hgfedcba"];
        let seeds: std::collections::BTreeSet<u64> = purposes.iter().map(|purpose| seed_for(7, purpose)).collect();
        assert_eq!(seeds.len(), purposes.len());
        assert_ne!(seed_for(7, "a"), seed_for(8, "a"));
    }
}
