//! Central differences in float64, for tests of hand-written gradients.

use tch::Tensor;

/// Asserts that `gradient` is that of `function` at `point`, value by value.
pub(crate) fn assert_gradient(point: &Tensor, gradient: &Tensor, function: impl Fn(&Tensor) -> f64) {
    const STEP: f64 = 1e-5;
    assert_eq!(point.size(), gradient.size());
    let values = Vec::<f64>::try_from(point.flatten(0, -1)).expect("a float64 tensor");
    let gradient = Vec::<f64>::try_from(gradient.flatten(0, -1)).expect("a float64 tensor");
    for (index, written) in gradient.iter().enumerate() {
        let at = |offset: f64| {
            let mut moved = values.clone();
            moved[index] += offset;
            function(&Tensor::from_slice(&moved).view(point.size().as_slice()))
        };
        let measured = (at(STEP) - at(-STEP)) / (2.0 * STEP);
        let tolerance = 1e-7 * (1.0 + measured.abs());
        assert!((measured - written).abs() < tolerance, "value {index}: measured {measured}, written {written}");
    }
}
