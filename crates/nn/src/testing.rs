//! For tests: random values that do not depend on other tests.

use tch::Tensor;

/// Values uniform in `±sqrt 3` (variance 1), float64 on the CPU, from a generator of their own (SplitMix64): libtorch's
/// is shared by all threads.
pub(crate) fn random(shape: &[i64], seed: u64) -> Tensor {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let values: Vec<f64> = (0..shape.iter().product())
        .map(|_: i64| {
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let mut word = state;
            word = (word ^ (word >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            word = (word ^ (word >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            word ^= word >> 31;
            ((word >> 11) as f64 / (1_u64 << 52) as f64 - 1.0) * 3.0_f64.sqrt()
        })
        .collect();
    Tensor::from_slice(&values).view(shape)
}
