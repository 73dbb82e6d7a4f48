//! The product of two small factors, added to rows of a weight.

use crate::Pair;

/// Adds `scale * B A` to rows `first_row` and following of a weight.
///
/// A value is the sum over the rank in the order of its index, times the scale, added to the weight: each step is one
/// float32 operation, so that the result depends on neither the number of threads nor the cut into pieces.
///
/// # Shapes
/// `values: [rows, inputs]`
pub(crate) fn add_product(values: &mut [f32], first_row: usize, pair: &Pair, scale: f32) {
    let mut sum = vec![0.0_f32; pair.inputs];
    for (row, values) in values.chunks_mut(pair.inputs).enumerate() {
        let factors = &pair.b[(first_row + row) * pair.r..][..pair.r];
        sum.fill(0.0);
        for (factor, a) in factors.iter().zip(pair.a.chunks_exact(pair.inputs)) {
            for (sum, a) in sum.iter_mut().zip(a) {
                *sum += factor * a;
            }
        }
        for (value, sum) in values.iter_mut().zip(&sum) {
            *value += scale * sum;
        }
    }
}
