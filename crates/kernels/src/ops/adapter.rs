//! What the operations need to know of adapters and of their dropout.
#![expect(non_snake_case, reason = "shape suffixes")]

use tch::Tensor;

use super::Layout;

/// An adapter of a projection in a group; its number in a list is that in [`Layout::adapters`].
#[derive(Debug, Clone, Copy)]
pub struct Adapter<'a> {
    /// `[R, I]`, master type, contiguous.
    pub a_RI: &'a Tensor,
    /// `[O, R]`, master type, contiguous; `O` is the width of its own projection.
    pub b_OR: &'a Tensor,
    /// The number of its module, in the counters of the dropout.
    pub module: u32,
    /// The scale of the adapter, times that of the values that dropout keeps.
    pub factor: f64,
}

/// The dropout of a pass: a channel of a module's input is dropped where its random word is below a threshold.
///
/// The word of a channel `c` is number `c % 4` of `philox([c / 4, position, place, module], key)`: it does not depend
/// on the row of the pass.
#[derive(Debug)]
pub struct Dropout {
    /// The key of the update.
    pub key: [u32; 2],
    /// Words below it drop.
    pub threshold: u32,
    /// The place in the update of each token's sample, `[T]`, int32.
    pub places_T: Tensor,
    /// The position of each token in its sample, `[T]`, int32.
    pub positions_T: Tensor,
}

/// The gradient of an augmented input, as the product of the backward pass gives it: in its first columns that of the
/// input through the weight, behind them those of the adapters' inner values. What the input's gradient is in the end:
/// `dx[t, i] = dx_TC[t, i] + sum over adapters of factor * keep[t, i] * sum over r of dx_TC[t, column + r] * A[r, i]`.
#[derive(Debug, Clone, Copy)]
pub struct LoraInput<'a> {
    /// `[T, columns]`, type of the computation.
    pub dx_TC: &'a Tensor,
    /// Which columns are what.
    pub layout: &'a Layout,
    /// In the order of the layout.
    pub adapters: &'a [Adapter<'a>],
    /// `None` drops nothing.
    pub dropout: Option<&'a Dropout>,
}
