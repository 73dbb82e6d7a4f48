//! Normally distributed numbers that are the same everywhere: no state, no library function.
//!
//! Number `i` of a stream is a function of the stream's key and `i` alone, so threads may take any part. Only integer
//! operations and IEEE 754's add, multiply, divide and square root are used, which every machine rounds alike; `ln` and
//! `cos` of a platform's library are not.

/// A stream of numbers from the standard normal distribution.
#[derive(Debug, Clone, Copy)]
pub struct Normal {
    key: u64,
}

impl Normal {
    /// The stream of a seed and a name.
    pub fn new(seed: u64, name: &str) -> Self {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_le_bytes());
        hasher.update(name.as_bytes());
        let mut key = [0; 8];
        hasher.finalize_xof().fill(&mut key);
        Self { key: u64::from_le_bytes(key) }
    }

    /// Number `index` of the stream.
    pub fn get(&self, index: u64) -> f64 {
        // 52 bits, so that the half can be added without rounding: strictly between 0 and 1, symmetric around 1/2.
        let bits = mix(self.key, index) >> 12;
        quantile((bits as f64 + 0.5) * f64::EPSILON)
    }
}

/// Word `index` of the SplitMix64 generator that starts at `key`.
///
/// # Source
/// Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014; constants of Vigna's splitmix64.c.
fn mix(key: u64, index: u64) -> u64 {
    let mut z = key.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The value that a standard normal variable stays below with probability `p`, in (0, 1); about seven digits.
///
/// # Source
/// Wichura: Algorithm AS 241, The Percentage Points of the Normal Distribution, Applied Statistics 37 (1988), PPND7.
fn quantile(p: f64) -> f64 {
    let q = p - 0.5;
    if q.abs() <= 0.425 {
        let r = 0.180_625 - q * q;
        let above = ((59.109_374_72 * r + 159.291_132_02) * r + 50.434_271_938) * r + 3.387_132_717_9;
        let below = ((67.187_563_600 * r + 78.757_757_664) * r + 17.895_169_469) * r + 1.0;
        return q * above / below;
    }
    let tail = if q < 0.0 { p } else { 1.0 - p };
    let r = (-ln(tail)).sqrt();
    let distance = if r <= 5.0 {
        let r = r - 1.6;
        let above = ((0.170_238_210_3 * r + 1.306_728_481_6) * r + 2.756_815_39) * r + 1.423_437_277_7;
        let below = (0.120_211_329_75 * r + 0.737_001_642_5) * r + 1.0;
        above / below
    } else {
        let r = r - 5.0;
        let above = ((0.017_337_203_997 * r + 0.428_682_943_37) * r + 3.081_226_386) * r + 6.657_905_115;
        let below = (0.012_258_202_635 * r + 0.241_978_942_25) * r + 1.0;
        above / below
    };
    if q < 0.0 { -distance } else { distance }
}

/// The natural logarithm of a positive, normal number, to about twelve digits: `x = m * 2^e` with `m` in
/// `[sqrt(1/2), sqrt(2))`, then the series of `2 artanh((m - 1) / (m + 1))`.
fn ln(x: f64) -> f64 {
    const MANTISSA_BITS: u32 = 52;
    const ONE: u64 = 1023 << MANTISSA_BITS;
    // The exponent that brings the mantissa closest to 1.
    let shifted = x.to_bits() + (ONE - std::f64::consts::FRAC_1_SQRT_2.to_bits());
    let exponent = (shifted >> MANTISSA_BITS) as i64 - 1023;
    let mantissa = f64::from_bits((shifted & ((1 << MANTISSA_BITS) - 1)) + std::f64::consts::FRAC_1_SQRT_2.to_bits());
    let s = (mantissa - 1.0) / (mantissa + 1.0);
    let t = s * s;
    let series = 1.0 + t * (1.0 / 3.0 + t * (0.2 + t * (1.0 / 7.0 + t * (1.0 / 9.0 + t * (1.0 / 11.0 + t / 13.0)))));
    exponent as f64 * std::f64::consts::LN_2 + 2.0 * s * series
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_logarithm_is_that_of_the_library() {
        for i in 1..200_000_u32 {
            let x = f64::from(i) / 131_072.0;
            assert!((ln(x) - x.ln()).abs() < 1e-11, "{x}");
        }
        for exponent in -53..=0 {
            let x = 2_f64.powi(exponent);
            assert!((ln(x) - x.ln()).abs() < 1e-11, "{x}");
        }
    }

    /// Quantiles from tables (R's qnorm).
    #[test]
    fn quantiles_are_those_of_the_normal_distribution() {
        for (p, expected) in [
            (0.5, 0.0),
            (0.075, -1.439_531_470_938_456),
            (0.841_344_746_068_543, 1.0),
            (0.975, 1.959_963_984_540_054),
            (0.999, 3.090_232_306_167_813),
            (1e-6, -4.753_424_308_822_899),
            (1e-12, -7.034_483_825_301_132),
        ] {
            assert!((quantile(p) - expected).abs() < 2e-7 * expected.abs().max(1.0), "{p}: {}", quantile(p));
        }
    }

    #[test]
    fn a_stream_never_changes() {
        let stream = Normal::new(42, "model.embed_tokens.weight");
        let bits: Vec<u64> = (0..4).map(|index| stream.get(index).to_bits()).collect();
        assert_eq!(
            bits,
            [
                4_609_581_359_687_887_307,
                4_603_590_406_241_389_060,
                4_606_299_007_551_087_705,
                13_817_541_685_001_742_928
            ]
        );
    }

    #[test]
    fn moments_are_those_of_the_normal_distribution() {
        const COUNT: u64 = 1 << 20;
        let stream = Normal::new(7, "any");
        let values: Vec<f64> = (0..COUNT).map(|index| stream.get(index)).collect();
        let moment = |power| values.iter().map(|value| value.powi(power)).sum::<f64>() / COUNT as f64;
        // Five standard errors each: the variance of the k-th power over the count.
        let error = |variance: f64| 5.0 * (variance / COUNT as f64).sqrt();
        assert!(moment(1).abs() < error(1.0));
        assert!((moment(2) - 1.0).abs() < error(2.0));
        assert!(moment(3).abs() < error(15.0));
        assert!((moment(4) - 3.0).abs() < error(96.0));
        let lag: f64 = values.windows(2).map(|pair| pair[0] * pair[1]).sum::<f64>() / COUNT as f64;
        assert!(lag.abs() < error(1.0));
    }

    #[test]
    fn names_and_seeds_give_other_streams() {
        let first = |seed, name| Normal::new(seed, name).get(0);
        assert_ne!(first(1, "a"), first(2, "a"));
        assert_ne!(first(1, "a"), first(1, "b"));
    }
}
