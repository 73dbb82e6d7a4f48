//! Philox4x32-10: a counter-based generator, the same everywhere and in any order.
//!
//! # Source
//! Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

/// Multipliers of a round.
pub const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What a round adds to the key.
pub const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
/// Rounds of the generator.
pub const ROUNDS: usize = 10;

/// Four random words for a counter.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for _ in 0..ROUNDS {
        let (high0, low0) = wide_product(MULTIPLIERS[0], counter[0]);
        let (high1, low1) = wide_product(MULTIPLIERS[1], counter[2]);
        counter = [high1 ^ counter[1] ^ key[0], low1, high0 ^ counter[3] ^ key[1], low0];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

/// The two halves of a 64-bit word: a key from a seed.
pub fn split(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

fn wide_product(left: u32, right: u32) -> (u32, u32) {
    let product = u64::from(left) * u64::from(right);
    ((product >> 32) as u32, product as u32)
}

/// Blocks of four channels that are computed side by side: the compiler makes vector instructions of it.
const SIDE: usize = 8;

/// Whether each channel of a token is kept, as 1 or 0: channel `c` has word `c % 4` of the counter
/// `[c / 4, position, place, module]`, and a word below `threshold` drops it.
pub(crate) fn keep(channels: &mut [u8], [position, place, module]: [u32; 3], key: [u32; 2], threshold: u32) {
    for (number, part) in channels.chunks_mut(4 * SIDE).enumerate() {
        let blocks: [u32; SIDE] = std::array::from_fn(|lane| (number * SIDE + lane) as u32);
        let words = side_by_side([blocks, [position; SIDE], [place; SIDE], [module; SIDE]], key);
        for (at, channel) in part.iter_mut().enumerate() {
            *channel = u8::from(words[at % 4][at / 4] >= threshold);
        }
    }
}

/// [`philox`] of several counters.
fn side_by_side(mut counter: [[u32; SIDE]; 4], mut key: [u32; 2]) -> [[u32; SIDE]; 4] {
    for _ in 0..ROUNDS {
        let mut next = [[0; SIDE]; 4];
        for lane in 0..SIDE {
            let (high0, low0) = wide_product(MULTIPLIERS[0], counter[0][lane]);
            let (high1, low1) = wide_product(MULTIPLIERS[1], counter[2][lane]);
            next[0][lane] = high1 ^ counter[1][lane] ^ key[0];
            next[1][lane] = low1;
            next[2][lane] = high0 ^ counter[3][lane] ^ key[1];
            next[3][lane] = low0;
        }
        counter = next;
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers that the authors publish with Random123.
    #[test]
    fn known_answers() {
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u32::MAX; 4], [u32::MAX; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn channels_of_a_token() {
        let key = [7, 9];
        let mut channels = [2; 75];
        keep(&mut channels, [11, 3, 5], key, 1 << 30);
        for (at, channel) in channels.iter().enumerate() {
            let word = philox([at as u32 / 4, 11, 3, 5], key)[at % 4];
            assert_eq!(*channel, u8::from(word >= 1 << 30), "channel {at}");
        }
        assert!(channels.contains(&0) && channels.contains(&1));
    }
}
