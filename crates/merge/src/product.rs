//! The product of two small factors, added to rows of a weight.

use crate::Pair;

/// The factors of a layer, ready to be multiplied.
#[derive(Debug)]
pub(crate) struct Factors {
    /// `[r, inputs]`, exact in float64.
    a: Vec<f64>,
    /// `[outputs, r]`
    b: Vec<f32>,
    r: usize,
    inputs: usize,
    scale: f64,
}

impl Factors {
    pub(crate) fn new(pair: Pair, scale: f64) -> Self {
        let Pair { a, b, r, inputs, .. } = pair;
        Self { a: a.into_iter().map(f64::from).collect(), b, r, inputs, scale }
    }

    /// Adds `scale * B A` to rows `first_row` and following of a weight.
    ///
    /// A value is the sum over the rank in the order of its index, times the scale, plus the weight, all in float64 and
    /// rounded to float32 once: where the two parts nearly cancel, float32 sums would leave digits that are not theirs. The
    /// result depends on neither the number of threads nor the cut into pieces.
    ///
    /// # Shapes
    /// `values: [rows, inputs]`
    pub(crate) fn add_to(&self, values: &mut [f32], first_row: usize) {
        let mut sum = vec![0.0_f64; self.inputs];
        for (row, values) in values.chunks_mut(self.inputs).enumerate() {
            let factors = &self.b[(first_row + row) * self.r..][..self.r];
            sum.fill(0.0);
            for (factor, a) in factors.iter().zip(self.a.chunks_exact(self.inputs)) {
                let factor = f64::from(*factor);
                for (sum, a) in sum.iter_mut().zip(a) {
                    *sum += factor * a;
                }
            }
            for (value, sum) in values.iter_mut().zip(&sum) {
                *value = (f64::from(*value) + self.scale * sum) as f32;
            }
        }
    }
}
