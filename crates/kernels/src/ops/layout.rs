//! How adapters and biases ride along in a matrix product.
//!
//! The projections that share an input are one product: their weights lie one below the other in `W [O, I]`. Behind the
//! `I` columns of a weight stand further ones: for every adapter the `R` columns of its B, in the rows of its own
//! projection and zero elsewhere, and one column for the biases. Behind the `I` columns of an input stand the adapters'
//! `s A(drop(x))` and a 1. So one product gives `W x + B (s A(drop(x))) + b`, and the product of the backward pass,
//! `dy W`, gives the gradients of the adapters' inner values in the same columns.

/// The columns of the augmented input and weight of a group of projections.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Columns of the input itself.
    pub width: i64,
    /// In the order of the parts.
    pub adapters: Vec<AdapterColumns>,
    /// The column of ones in the input, and of biases in the weight.
    pub bias: Option<i64>,
    /// All columns: a multiple of 8, which the fastest matrix products want. Those without a use are zero.
    pub columns: i64,
}

/// Where an adapter's inner values stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AdapterColumns {
    /// Which of the projections of the group it belongs to.
    pub part: usize,
    /// Its first column.
    pub column: i64,
    /// How many.
    pub rank: i64,
}

impl Layout {
    /// For an input of `width` channels, the ranks of the parts' adapters and whether any part has a bias.
    pub fn new(width: i64, ranks: &[Option<i64>], bias: bool) -> Self {
        let mut next = width;
        let mut adapters = Vec::new();
        for (part, rank) in ranks.iter().enumerate() {
            if let Some(rank) = *rank {
                adapters.push(AdapterColumns { part, column: next, rank });
                next += rank;
            }
        }
        let bias = bias.then_some(next);
        next += i64::from(bias.is_some());
        let extra = next - width;
        // A plain input needs no copy with other columns behind it.
        let columns = if extra == 0 { width } else { (next + 7) / 8 * 8 };
        Self { width, adapters, bias, columns }
    }

    /// Columns behind the input's own.
    pub fn extra(&self) -> i64 {
        self.columns - self.width
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_follow_each_other() {
        let layout = Layout::new(100, &[Some(8), None, Some(3)], true);
        let columns: Vec<_> =
            layout.adapters.iter().map(|adapter| (adapter.part, adapter.column, adapter.rank)).collect();
        assert_eq!(columns, [(0, 100, 8), (2, 108, 3)]);
        assert_eq!((layout.bias, layout.columns, layout.extra()), (Some(111), 112, 12));
        let plain = Layout::new(100, &[None], false);
        assert_eq!((plain.columns, plain.extra()), (100, 0));
    }
}
