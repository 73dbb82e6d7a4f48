//! AdamW and clipping, on the trained tensors of a model: no word of the device goes to the host in between.

use pipe_kernels::{
    Readback,
    ops::{
        AdamWStep, Moments, RowGradient, Sparse, TableMut, adamw, adamw_rows, clip, partials_of, sum_of_squares,
        sum_of_squares_rows,
    },
};
use serde::{Deserialize, Serialize};
use tch::{Kind, Tensor};

use crate::{
    Error, LossScale, Parameters, Place,
    error::Result,
    parameter::{Gradient, Value},
    table_gradient::Rows,
};

/// Values of a table whose gradient is computed at once: 64 MiB.
const BLOCK_VALUES: i64 = 1 << 24;

/// How AdamW keeps its running means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum States {
    /// As they are: 8 bytes a trained value.
    #[default]
    Float32,
    /// In codes of 8 bits with a scale for 256 values, of every tensor, however small: 2 bytes a trained value.
    /// [`Moments::EightBit`] says how.
    EightBit,
}

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
    /// How the running means are kept.
    pub states: States,
    /// Whether the gradients are those of the loss times [`AdamW::loss_scale`], and an update whose gradients are not
    /// finite is left out, once; without, such an update ends the run.
    pub scales_loss: bool,
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
    /// Those among them that changed nothing.
    skipped: u64,
    loss_scale: Option<LossScale>,
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
pub struct PendingNorm(Norm);

#[derive(Debug)]
enum Norm {
    Computed(Readback),
    Known(f64),
}

/// What a checkpoint keeps of an optimizer beside its tensors, where the loss is scaled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scaling {
    scale: LossScale,
    skipped: u64,
}

impl PendingNorm {
    /// The norm. Waits until the device has come so far.
    ///
    /// # Errors
    /// If the device failed.
    pub fn read(self) -> std::result::Result<f64, Error> {
        match self.0 {
            Norm::Computed(readback) => Ok(readback.read()?.first().copied().unwrap_or(0.0)),
            Norm::Known(norm) => Ok(norm),
        }
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
        let moments = |count| match options.states {
            States::Float32 => Moments::new(count, kind, device),
            States::EightBit => Moments::eight_bit(count, device),
        };
        let mut tables = Vec::new();
        let mut partials = partials_of(flat.numel() as i64);
        for (index, parameter) in parameters.list().iter().enumerate() {
            if let Gradient::Table(_) = parameter.gradient {
                let (rows, width) = matrix_size(parameter.size());
                tables.push((index, moments(rows * width)?));
                partials +=
                    blocks(rows, width).map(|block| partials_of((block.end - block.start) * width)).sum::<i64>();
            }
        }
        Ok(Self {
            options,
            updates: 0,
            skipped: 0,
            loss_scale: options.scales_loss.then(LossScale::default),
            matrices: moments(flat.numel() as i64)?,
            tables,
            partials: Tensor::f_zeros([partials], (Kind::Double, device))?,
            broken: Tensor::f_zeros([1], (Kind::Int, device))?,
        })
    }

    /// Updates done, those included that were left out.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// Updates that changed something, which is what the schedule of a run goes by.
    pub fn applied(&self) -> u64 {
        self.updates - self.skipped
    }

    /// What the loss of the next update must be multiplied by, if it must be.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale
    }

    pub(crate) fn scaling(&self) -> Option<Scaling> {
        self.loss_scale.map(|scale| Scaling { scale, skipped: self.skipped })
    }

    /// Goes on as if `updates` updates had been done.
    pub(crate) fn restore(&mut self, updates: u64, scaling: Option<Scaling>) {
        self.updates = updates;
        self.skipped = scaling.map_or(0, |scaling| scaling.skipped);
        self.loss_scale = scaling.map(|scaling| scaling.scale);
    }

    /// How the running means are kept.
    pub(crate) fn states(&self) -> States {
        self.options.states
    }

    /// The tensors that are the running means of parameter `index`: those of the gradient and of its square, of the
    /// parameter's shape; in 8 bits the codes of both, then the scales of both, flat. Writing them changes the states.
    pub(crate) fn states_of(&self, parameters: &Parameters, index: usize) -> Result<Vec<Value>> {
        let table = self.tables.iter().find(|(table, _)| *table == index);
        let moments = table.map_or(&self.matrices, |(_, moments)| moments);
        let size = parameters.list()[index].size();
        let whole = |flat: &Tensor| match table {
            Some(_) => Ok(flat.f_view(size)?),
            None => parameters.part_of(flat, index),
        };
        // A parameter begins with a block of its own.
        let scales = |flat: &Tensor| match table {
            Some(_) => Ok(flat.shallow_clone()),
            None => parameters.blocks_of(flat, index),
        };
        let tensors = match moments {
            Moments::Float32 { mean, square } => vec![whole(mean)?, whole(square)?],
            Moments::EightBit { mean, square, mean_scales, square_scales, .. } => {
                vec![whole(mean)?, whole(square)?, scales(mean_scales)?, scales(square_scales)?]
            }
        };
        Ok(tensors.into_iter().map(Value::Whole).collect())
    }

    /// Clips the gradients and updates every parameter with them. If their norm is not finite, nothing changes, neither
    /// now nor with any later update; where the loss is scaled, the scale is halved and later updates go on.
    ///
    /// Waits for the device where the loss is scaled.
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
        let AdamWOptions { beta1, beta2, epsilon, weight_decay, .. } = self.options;
        let step = AdamWStep { learning_rate, beta1, beta2, epsilon, weight_decay, update: self.applied() + 1 };
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
        let norm = Readback::new(&clipped)?;
        self.updates += 1;
        let Some(scale) = &mut self.loss_scale else { return Ok(PendingNorm(Norm::Computed(norm))) };
        let norm = norm.read()?.first().copied().unwrap_or(0.0);
        scale.take(norm.is_finite());
        self.skipped += u64::from(!norm.is_finite());
        Ok(PendingNorm(Norm::Known(norm)))
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
        let scale = match &self.loss_scale {
            Some(scale) => {
                // What broke an earlier update does not break this one.
                let _ = self.broken.shallow_clone().f_zero_()?;
                scale.value()
            }
            None => 1.0,
        };
        Ok(clip(&self.partials, self.options.max_grad_norm, scale, &self.broken)?)
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
