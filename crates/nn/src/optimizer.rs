//! AdamW and clipping, on the trained tensors of a model: no word of the device goes to the host in between.

use pipe_kernels::{
    Readback,
    ops::{
        AdamWStep, Moments, RowGradient, Sparse, TableMut, adamw, adamw_rows, clip, partials_of, sum_of_squares,
        sum_of_squares_rows,
    },
};
use tch::{Kind, Tensor};

use crate::{
    Error, Parameters, Place,
    error::Result,
    parameter::{Gradient, Value},
    table_gradient::Rows,
};

/// Values of a table whose gradient is computed at once: 64 MiB.
const BLOCK_VALUES: i64 = 1 << 24;

/// What AdamW and clipping are told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWOptions {
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the denominator, behind the bias correction.
    pub epsilon: f64,
    /// Decoupled weight decay, of every tensor.
    pub weight_decay: f64,
    /// Longest gradient over all tensors (L2); 0 does not clip.
    pub max_grad_norm: f64,
}

/// AdamW: the running means of a model's parameters, which stay the same from update to update.
///
/// # Source
/// Loshchilov and Hutter, arXiv:1711.05101, in the form of `torch.optim.AdamW`; clipping as
/// `torch.nn.utils.clip_grad_norm_`.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    updates: u64,
    /// Of all matrices, flat.
    matrices: Moments,
    /// Of the tables, by the number of the parameter.
    tables: Vec<(usize, Moments)>,
    /// Partial sums of squares: those of the matrices, then those of each table's blocks.
    partials: Tensor,
    /// `[1]`, int32: set by the first gradient that is not finite.
    broken: Tensor,
}

/// The norm of an update's gradient, before clipping, which the device may still be computing.
#[derive(Debug)]
pub struct PendingNorm(Readback);

impl PendingNorm {
    /// The norm. Waits until the device has come so far.
    ///
    /// # Errors
    /// If the device failed.
    pub fn read(self) -> std::result::Result<f64, Error> {
        Ok(self.0.read()?.first().copied().unwrap_or(0.0))
    }
}

impl AdamW {
    /// Fresh states for `parameters`.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn new(options: AdamWOptions, parameters: &Parameters) -> std::result::Result<Self, Error> {
        Self::with_states(options, parameters).map_err(|error| error.at(Place::Optimizer))
    }

    fn with_states(options: AdamWOptions, parameters: &Parameters) -> Result<Self> {
        let (flat, _) = parameters.flat();
        let (kind, device) = (flat.f_kind()?, flat.device());
        let mut tables = Vec::new();
        let mut partials = partials_of(flat.numel() as i64);
        for (index, parameter) in parameters.list().iter().enumerate() {
            if let Gradient::Table(_) = parameter.gradient {
                let (rows, width) = matrix_size(parameter.size());
                tables.push((index, Moments::new(rows * width, kind, device)?));
                partials +=
                    blocks(rows, width).map(|block| partials_of((block.end - block.start) * width)).sum::<i64>();
            }
        }
        Ok(Self {
            options,
            updates: 0,
            matrices: Moments::new(flat.numel() as i64, kind, device)?,
            tables,
            partials: Tensor::f_zeros([partials], (Kind::Double, device))?,
            broken: Tensor::f_zeros([1], (Kind::Int, device))?,
        })
    }

    /// Updates done.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Goes on as if `updates` updates had been done.
    pub(crate) fn restore(&mut self, updates: u64) {
        self.updates = updates;
    }

    /// The running means of parameter `index`, of its shape: of the gradient, and of its square. Writing them changes
    /// the states.
    pub(crate) fn states(&self, parameters: &Parameters, index: usize) -> Result<[Value; 2]> {
        let table = self.tables.iter().find(|(table, _)| *table == index);
        let moments = table.map_or(&self.matrices, |(_, moments)| moments);
        let (mean, square) = match moments {
            Moments::Float32 { mean, square } => (mean, square),
            Moments::EightBit { .. } => return Err(Error::States),
        };
        let size = parameters.list()[index].size();
        let part = |flat: &Tensor| match table {
            Some(_) => Ok(flat.f_view(size)?),
            None => parameters.part_of(flat, index),
        };
        Ok([Value::Whole(part(mean)?), Value::Whole(part(square)?)])
    }

    /// Clips the gradients and updates every parameter with them. If their norm is not finite, nothing changes, neither
    /// now nor with any later update.
    ///
    /// # Errors
    /// If the device has no memory for the blocks of a table's gradient.
    pub fn update(
        &mut self,
        parameters: &mut Parameters,
        learning_rate: f64,
    ) -> std::result::Result<PendingNorm, Error> {
        let _guard = tch::no_grad_guard();
        self.step(parameters, learning_rate).map_err(|error| error.at(Place::Optimizer))
    }

    fn step(&mut self, parameters: &mut Parameters, learning_rate: f64) -> Result<PendingNorm> {
        let clipped = self.measure(parameters)?;
        self.updates += 1;
        let AdamWOptions { beta1, beta2, epsilon, weight_decay, .. } = self.options;
        let step = AdamWStep { learning_rate, beta1, beta2, epsilon, weight_decay, update: self.updates };
        let (values, grads) = parameters.flat();
        if values.numel() > 0 {
            adamw(values, grads, &self.matrices, &step, &clipped)?;
        }
        for (index, moments) in &self.tables {
            let parameter = &mut parameters.list_mut()[*index];
            let (height, width) = matrix_size(parameter.size());
            let Gradient::Table(gradient) = &parameter.gradient else { continue };
            for block in blocks(height, width) {
                let rows = gradient.rows(&parameter.value, block.start, block.end - block.start)?;
                let table = match &mut parameter.value {
                    Value::Whole(values) => TableMut::Whole(values),
                    Value::Halves(halves) => TableMut::Halves(halves),
                };
                adamw_rows(table, block, &rows.gradient(), moments, &step, &clipped)?;
            }
        }
        Ok(PendingNorm(Readback::new(&clipped)?))
    }

    /// The norm of all gradients together, and what follows from it.
    fn measure(&self, parameters: &Parameters) -> Result<Tensor> {
        let (_, grads) = parameters.flat();
        let mut next = partials_of(grads.numel() as i64);
        if grads.numel() > 0 {
            sum_of_squares(grads, &self.partials, 0)?;
        }
        for (index, _) in &self.tables {
            let parameter = &parameters.list()[*index];
            let (height, width) = matrix_size(parameter.size());
            let Gradient::Table(gradient) = &parameter.gradient else { continue };
            for block in blocks(height, width) {
                let count = (block.end - block.start) * width;
                let rows = gradient.rows(&parameter.value, block.start, block.end - block.start)?;
                let mut own = self.partials.f_narrow(0, next, partials_of(count))?;
                match rows.is_zero() {
                    true => drop(own.f_zero_()?),
                    false => sum_of_squares_rows(block, width, &rows.gradient(), &self.partials, next)?,
                }
                next += partials_of(count);
            }
        }
        Ok(clip(&self.partials, self.options.max_grad_norm, &self.broken)?)
    }
}

impl Rows<'_> {
    fn gradient(&self) -> RowGradient<'_> {
        let sparse = self.sparse.map(|(slot_of_row, values)| Sparse { slot_of_row, values });
        RowGradient { dense: self.dense_BD.as_ref(), sparse }
    }

    fn is_zero(&self) -> bool {
        self.dense_BD.is_none() && self.sparse.is_none()
    }
}

/// The name of a parameter with a value that is NaN or infinite, if there is one. Waits for the device.
///
/// # Errors
/// If the device refuses.
pub fn find_not_finite(parameters: &[crate::Parameter]) -> std::result::Result<Option<&str>, Error> {
    for parameter in parameters {
        let values = match &parameter.value {
            Value::Whole(values) => values,
            // Of a word that is not finite neither is its upper half, and what rounds up to infinity is no weight.
            Value::Halves(halves) => &halves.high,
        };
        // Needs no temporary of the tensor's size; a NaN is both the least and the greatest.
        let (least, greatest) = values.f_aminmax(None, false)?;
        for bound in [least, greatest] {
            if !f64::try_from(bound)?.is_finite() {
                return Ok(Some(&parameter.name));
            }
        }
    }
    Ok(None)
}

/// Blocks of the rows of a table; with 8-bit states, each begins with a scale of its own.
fn blocks(height: i64, width: i64) -> impl Iterator<Item = std::ops::Range<i64>> {
    // A multiple of 256 rows is a multiple of 256 values.
    let block = (BLOCK_VALUES / width.max(1) / 256).max(1) * 256;
    (0..height).step_by(block as usize).map(move |first| first..(first + block).min(height))
}

fn matrix_size(size: &[i64]) -> (i64, i64) {
    (size.first().copied().unwrap_or(1), size.iter().skip(1).product())
}
