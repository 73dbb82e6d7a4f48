//! The gradient of a table of tokens, never whole.
//!
//! That of a head is a product of two factors that are smaller than it, `d_logits^T x`; that of an embedding has rows
//! for the tokens of the update only. The rows of any block of the vocabulary are computed from these when they are
//! wanted: once for the norm of the gradient, once for the update. A gradient of float32 words would take as much memory
//! as the weights.
//!
//! Shape suffixes: N labelled positions, V vocabulary, B rows of a block of it, D width, S rows with a sum.
#![expect(non_snake_case, reason = "shape suffixes")]

use std::collections::HashMap;

use pipe_kernels::{
    ops::{TokenRows, cross_entropy_gradient, embedding_gradient, product, product_into},
    upload,
};
use tch::{Device, Kind, Tensor};

use crate::{error::Result, parameter::Value};

/// The gradient of a table, summed over the passes of an update.
#[derive(Debug)]
pub(crate) struct TableGradient {
    shape: (i64, i64),
    master: Kind,
    device: Device,
    products: Vec<Product>,
    sums: Option<Sums>,
}

/// What a head leaves for some labelled positions.
#[derive(Debug)]
pub(crate) struct Product {
    /// Inputs of the head, in the type of the computation.
    pub(crate) x_ND: Tensor,
    /// What the positions predict, int32.
    pub(crate) tokens_N: Tensor,
    /// The logarithms of the sums of exponentials.
    pub(crate) lse_N: Tensor,
    /// What the losses are multiplied by.
    pub(crate) scale: f64,
    /// The gradient of the logits, `[N, V]`, if it was kept; else it is computed again.
    pub(crate) d_logits_NV: Option<Tensor>,
}

/// Sums of the gradients of an embedding's output, by token.
#[derive(Debug)]
struct Sums {
    /// The row of `sums_SD` of each token, -1 without one, `[V]`, int32.
    slot_of_row_V: Tensor,
    sums_SD: Tensor,
    /// The same on the host.
    slots: HashMap<i32, i32>,
}

/// Some rows of a gradient: a dense part and one by token.
#[derive(Debug)]
pub(crate) struct Rows<'a> {
    first: i64,
    rows: i64,
    width: i64,
    master: Kind,
    device: Device,
    /// `[B, D]`, master type.
    pub(crate) dense_BD: Option<Tensor>,
    /// For the whole vocabulary: the slot of each token, and the sums.
    pub(crate) sparse: Option<(&'a Tensor, &'a Tensor)>,
}

impl TableGradient {
    /// Zero, for a table `[V, D]`.
    pub(crate) fn new(shape: (i64, i64), master: Kind, device: Device) -> Self {
        Self { shape, master, device, products: Vec::new(), sums: None }
    }

    /// Back to zero.
    pub(crate) fn clear(&mut self) {
        self.products.clear();
        self.sums = None;
    }

    /// Positions whose gradient of the logits was kept.
    pub(crate) fn kept_positions(&self) -> i64 {
        self.products.iter().filter_map(|product| product.d_logits_NV.as_ref()).map(|kept| kept.size()[0]).sum()
    }

    /// Adds what a head leaves.
    pub(crate) fn add_product(&mut self, product: Product) {
        self.products.push(product);
    }

    /// Makes room for the rows of a pass that reads `ids`; those of `padding` have no gradient. `None` if there is no
    /// other.
    pub(crate) fn prepare(&mut self, ids: &[i64], padding: Option<u32>) -> Result<Option<TokenRows>> {
        let mut order: Vec<usize> =
            (0..ids.len()).filter(|row| padding.is_none_or(|id| ids[*row] != i64::from(id))).collect();
        // Stable: the rows of a token stay in the order of the pass.
        order.sort_by_key(|row| ids[*row]);
        if order.is_empty() {
            return Ok(None);
        }
        let (mut tokens, mut starts) = (Vec::new(), Vec::new());
        for (at, row) in order.iter().enumerate() {
            if tokens.last() != Some(&(ids[*row] as i32)) {
                tokens.push(ids[*row] as i32);
                starts.push(at as i32);
            }
        }
        starts.push(order.len() as i32);
        let order: Vec<i32> = order.into_iter().map(|row| row as i32).collect();
        let slots = self.slots(&tokens)?;
        let [tokens_U, slots_U, starts_U1, order] =
            [tokens, slots, starts, order].map(|values| upload(&values, self.device));
        Ok(Some(TokenRows { tokens_U: tokens_U?, slots_U: slots_U?, starts_U1: starts_U1?, order: order? }))
    }

    /// The rows of the sums of these tokens: those that they have, and new ones.
    fn slots(&mut self, tokens: &[i32]) -> Result<Vec<i32>> {
        let (vocabulary, width) = self.shape;
        let (master, device) = (self.master, self.device);
        let sums = match &mut self.sums {
            Some(sums) => sums,
            none => none.insert(Sums {
                slot_of_row_V: Tensor::f_full([vocabulary], -1, (Kind::Int, device))?,
                sums_SD: Tensor::f_zeros([0, width], (master, device))?,
                slots: HashMap::new(),
            }),
        };
        let mut slots = Vec::with_capacity(tokens.len());
        for token in tokens {
            let next = sums.slots.len() as i32;
            slots.push(*sums.slots.entry(*token).or_insert(next));
        }
        let new = sums.slots.len() as i64 - sums.sums_SD.size()[0];
        if new > 0 {
            let zeros = Tensor::f_zeros([new, width], (master, device))?;
            sums.sums_SD = Tensor::f_cat(&[&sums.sums_SD, &zeros], 0)?;
        }
        Ok(slots)
    }

    /// Adds the gradient of the embedding's output, `[T, D]`.
    pub(crate) fn add_rows(&mut self, dh_TD: &Tensor, rows: &TokenRows) -> Result<()> {
        match &self.sums {
            Some(sums) => Ok(embedding_gradient(dh_TD, rows, &sums.sums_SD, &sums.slot_of_row_V)?),
            None => Ok(()),
        }
    }

    /// The gradient of `rows` rows from `first` of the table with these weights.
    pub(crate) fn rows(&self, weights: &Value, first: i64, rows: i64) -> Result<Rows<'_>> {
        let (_, width) = self.shape;
        let mut dense_BD: Option<Tensor> = None;
        for part in &self.products {
            let d_logits_NB = part.d_logits(weights, first, rows)?;
            match &dense_BD {
                Some(sum) => product_into(sum, &d_logits_NB.f_tr()?, &part.x_ND, true)?,
                None => dense_BD = Some(product(&d_logits_NB.f_tr()?, &part.x_ND, self.master)?),
            }
        }
        let sparse = self.sums.as_ref().map(|sums| (&sums.slot_of_row_V, &sums.sums_SD));
        Ok(Rows { first, rows, width, master: self.master, device: self.device, dense_BD, sparse })
    }
}

impl Product {
    /// Columns of the gradient of the logits.
    fn d_logits(&self, weights: &Value, first: i64, rows: i64) -> Result<Tensor> {
        if let Some(whole_NV) = &self.d_logits_NV {
            return Ok(whole_NV.f_narrow(1, first, rows)?);
        }
        let kind = self.x_ND.f_kind()?;
        let logits_NB = product(&self.x_ND, &weights.cast_rows(kind, first, rows)?.f_tr()?, kind)?;
        cross_entropy_gradient(&logits_NB, &self.tokens_N, &self.lse_N, self.scale, first)?;
        Ok(logits_NB)
    }
}

impl Rows<'_> {
    /// Both parts together, `[B, D]`.
    pub(crate) fn whole(self) -> Result<Tensor> {
        let sum_BD = match self.dense_BD {
            Some(dense_BD) => dense_BD,
            None => Tensor::f_zeros([self.rows, self.width], (self.master, self.device))?,
        };
        let Some((slot_of_row_V, sums_SD)) = self.sparse else { return Ok(sum_BD) };
        let slots_B = slot_of_row_V.f_narrow(0, self.first, self.rows)?.f_to_kind(Kind::Int64)?;
        let rows = slots_B.f_ge(0)?.f_nonzero()?.f_squeeze_dim(1)?;
        let slots = slots_B.f_index_select(0, &rows)?;
        let mut sum_BD = sum_BD;
        Ok(sum_BD.f_index_add_(0, &rows, &sums_SD.f_index_select(0, &slots)?)?)
    }
}
