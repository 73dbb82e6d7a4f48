//! What the format promises, for any values.

use pipe_nf4::{BLOCK, CODE_VALUES, DYNAMIC_MAP, NestedAbsmax, THRESHOLDS, dequantize_blocks, quantize_blocks};
use proptest::prelude::*;

/// The rule in plain words: divide by nothing, multiply by the reciprocal, count the thresholds below.
fn code(value: f32, absmax: f32) -> u8 {
    let scaled = value * (1.0 / absmax);
    THRESHOLDS.iter().take_while(|threshold| scaled > **threshold).count() as u8
}

fn quantize(values: &[f32]) -> (Vec<u8>, Vec<f32>) {
    let mut packed = vec![0; values.len().div_ceil(2)];
    let mut absmax = vec![0.0; values.len().div_ceil(BLOCK)];
    quantize_blocks(values, &mut packed, &mut absmax);
    (packed, absmax)
}

fn finite() -> impl Strategy<Value = f32> {
    prop_oneof![
        4 => -1.0_f32..1.0,
        1 => any::<f32>().prop_filter("finite", |value| value.is_finite()),
        1 => Just(0.0_f32),
        1 => prop::sample::select(THRESHOLDS.to_vec()),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) })]

    #[test]
    fn codes_follow_the_definition(values in prop::collection::vec(finite(), 1..300)) {
        let (packed, absmax) = quantize(&values);
        for (i, value) in values.iter().enumerate() {
            let block = &values[i / BLOCK * BLOCK..values.len().min((i / BLOCK + 1) * BLOCK)];
            let largest = block.iter().fold(0.0_f32, |largest, value| largest.max(value.abs()));
            prop_assert_eq!(absmax[i / BLOCK].to_bits(), largest.to_bits());
            let found = if i % 2 == 0 { packed[i / 2] >> 4 } else { packed[i / 2] & 15 };
            prop_assert_eq!(found, code(*value, largest));
        }
        if values.len() % 2 == 1 {
            prop_assert_eq!(packed[values.len() / 2] & 15, code(0.0, absmax[(values.len() - 1) / BLOCK]));
        }
    }

    #[test]
    fn restored_values_are_near(values in prop::collection::vec(-1.0_f32..1.0, 1..300)) {
        let (packed, absmax) = quantize(&values);
        let mut restored = vec![0.0; values.len()];
        dequantize_blocks(&packed, &absmax, BLOCK, &mut restored);
        // Half of the widest gap between two code values.
        let gap = CODE_VALUES.windows(2).fold(0.0_f32, |gap, pair| gap.max(pair[1] - pair[0]));
        for (i, (value, restored)) in values.iter().zip(&restored).enumerate() {
            prop_assert!((value - restored).abs() <= absmax[i / BLOCK] * (gap / 2.0 + 1e-6));
        }
    }

    #[test]
    fn quantising_what_was_restored_changes_nothing(values in prop::collection::vec(-1.0_f32..1.0, 1..300)) {
        let (packed, absmax) = quantize(&values);
        let mut restored = vec![0.0; values.len()];
        dequantize_blocks(&packed, &absmax, BLOCK, &mut restored);
        let (packed_again, absmax_again) = quantize(&restored);
        prop_assert_eq!(packed, packed_again);
        prop_assert_eq!(absmax, absmax_again);
    }

    /// Away from midpoints, the search finds the nearest entry of the map.
    #[test]
    fn nested_codes_are_nearest(scales in prop::collection::vec(0.0_f32..10.0, 1..600)) {
        let nested = NestedAbsmax::quantize(&scales);
        let restored = nested.dequantize();
        for (i, scale) in scales.iter().enumerate() {
            let absmax = nested.absmax[i / 256];
            let error = |entry: f32| ((scale - nested.offset) - entry * absmax).abs();
            let best = DYNAMIC_MAP.iter().fold(f32::INFINITY, |best, entry| best.min(error(*entry)));
            prop_assert!(error(DYNAMIC_MAP[usize::from(nested.codes[i])]) <= best + absmax * 1e-6);
            prop_assert!((restored[i] - scale).abs() <= absmax * 0.0072 + nested.offset * 1e-6);
        }
    }
}

/// Between two entries, the search of the CUDA kernel ends at the even one (checked on a restatement of it in numpy).
#[test]
fn exact_midpoints_take_the_even_entry() {
    let midpoints = DYNAMIC_MAP.windows(2).map(|pair| (pair[0] + pair[1]) * 0.5);
    // The last scale makes the largest magnitude 1, so that nothing is rounded on the way.
    let scales: Vec<f32> = midpoints.chain([1.0]).collect();
    let nested = NestedAbsmax::quantize_with_offset(&scales, 0.0);
    assert_eq!(nested.absmax, [1.0]);
    for (i, code) in nested.codes[..255].iter().enumerate() {
        assert_eq!(usize::from(*code), i + i % 2, "between {i} and {}", i + 1);
    }
}

#[test]
fn a_scale_tells_of_values_that_are_not_finite() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut values = vec![0.5; 200];
        values[130] = bad;
        let (_, absmax) = quantize(&values);
        let finite: Vec<bool> = absmax.iter().map(|scale| scale.is_finite()).collect();
        assert_eq!(finite, [true, true, false, true]);
    }
}
