//! AdamW and clipping, with no word of the device going to the host.
//!
//! The gradients of an update are measured with [`sum_of_squares`], a slice of partial sums for each tensor; [`clip`]
//! makes the norm, the factor and a flag of them, and [`adamw`] reads these where they are. The gradients themselves
//! are not changed.
//!
//! # Source
//! Loshchilov and Hutter, arXiv:1711.05101, in the form of `torch.optim.AdamW`; clipping as
//! `torch.nn.utils.clip_grad_norm_`.

mod moments;
mod reference;
#[cfg(test)]
mod tests;

use std::ops::Range;

use tch::{Device, Kind, Tensor};

pub use self::moments::Moments;
use self::reference::Sizes;
use super::{Halves, check::Check};
use crate::{
    Error,
    launch::Launch,
    nvrtc::{Source, source},
};

pub(crate) const SOURCE: Source = source!("optimizer");

const THREADS: u32 = 256;
/// Values of a block of threads, also with states in 8 bits twice as many.
const BLOCK_VALUES: i64 = 1024;

/// What an update is told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWStep {
    /// Of this update.
    pub learning_rate: f64,
    /// Decay of the running mean of the gradient.
    pub beta1: f64,
    /// Decay of the running mean of the squared gradient.
    pub beta2: f64,
    /// Added to the denominator, behind the bias correction.
    pub epsilon: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// The number of the update, from 1 on.
    pub update: u64,
}

/// A trained table `[V, D]`, which an update changes in place.
#[derive(Debug)]
pub enum TableMut<'a> {
    /// float32 (on the CPU also float64), contiguous.
    Whole(&'a Tensor),
    /// In two halves.
    Halves(&'a mut Halves),
}

/// The gradient of some rows of a table: the sum of both, zero where there is neither.
#[derive(Debug, Clone, Copy, Default)]
pub struct RowGradient<'a> {
    /// `[rows, D]`, of these rows alone; master type, contiguous.
    pub dense: Option<&'a Tensor>,
    /// Of single rows of the whole table.
    pub sparse: Option<Sparse<'a>>,
}

/// The gradient of single rows of a table.
#[derive(Debug, Clone, Copy)]
pub struct Sparse<'a> {
    /// Which row of `values` belongs to a row of the table, `[V]`, int32; negative: none.
    pub slot_of_row: &'a Tensor,
    /// `[slots, D]`, master type, contiguous.
    pub values: &'a Tensor,
}

/// How many partial sums [`sum_of_squares`] writes for a gradient of `count` values.
pub fn partials_of(count: i64) -> i64 {
    ((count + 4 * BLOCK_VALUES - 1) / (4 * BLOCK_VALUES)).clamp(1, 1024)
}

/// Writes the partial sums of the squares of `values` to `partials`, from number `first` on.
///
/// # Shapes
/// `values`: any, float32 (on the CPU also float64), contiguous. `partials [n]`, float64, of which
/// [`partials_of`]`(count)` are written.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn sum_of_squares(values: &Tensor, partials: &Tensor, first: i64) -> Result<(), Error> {
    let check = Check { kernel: "sum_of_squares", device: values.device() };
    check.tensor("values", values, master(values), &values.size())?;
    let count = values.numel() as i64;
    let gradient = RowGradient { dense: Some(&values.f_view([1, count])?), sparse: None };
    squares(&check, &(0..1), count, &gradient, partials, first)
}

/// The same of the gradient of rows of a table of `width` columns.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn sum_of_squares_rows(
    rows: Range<i64>,
    width: i64,
    gradient: &RowGradient<'_>,
    partials: &Tensor,
    first: i64,
) -> Result<(), Error> {
    let check = Check { kernel: "sum_of_squares", device: partials.device() };
    squares(&check, &rows, width, gradient, partials, first)
}

fn squares(
    check: &Check,
    rows: &Range<i64>,
    width: i64,
    gradient: &RowGradient<'_>,
    partials: &Tensor,
    first: i64,
) -> Result<(), Error> {
    check_gradient(check, rows, width, gradient, gradient.kind())?;
    let count = (rows.end - rows.start) * width;
    let number = partials_of(count);
    check.tensor("partials", partials, Kind::Double, &[partials.numel() as i64])?;
    let inside = first >= 0 && first + number <= partials.numel() as i64;
    check.require(inside, || format!("partial sums {first} to {} of {}", first + number, partials.numel()))?;
    let mut own = partials.f_narrow(0, first, number)?;
    if !check.device.is_cuda() {
        let gradient = reference::gradient(rows, width, gradient, gradient.kind())?;
        let _ = own.f_zero_()?;
        own.f_select(0, 0)?.f_copy_(&gradient.f_to_kind(Kind::Double)?.f_square()?.f_sum(Kind::Double)?)?;
        return Ok(());
    }
    let gradient = gradient_words(rows, width, gradient, true)?;
    Launch::new(&SOURCE, "sum_of_squares", Kind::Float, check.device)?.structure(&gradient).tensor(&own).run(
        [number as u32, 1, 1],
        THREADS,
        0,
    )
}

/// `[norm, factor, go on]` of the gradients whose partial sums are given, float32, on their device: the L2 norm of all
/// together, what to multiply them with so that it is at most `max_norm` (0 does not clip), and 1 or 0: with 0 the
/// updates that read it change nothing.
///
/// A norm that is not finite makes `sticky` 1, and while it is 1 nothing goes on. The caller makes it 0.
///
/// `scale`, a power of two, is how many times too large the gradients are: the norm is that of the true ones, and the
/// factor makes up for it.
///
/// # Shapes
/// `partials [n]`, float64; `sticky [1]`, int32.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn clip(partials: &Tensor, max_norm: f64, scale: f64, sticky: &Tensor) -> Result<Tensor, Error> {
    let check = Check { kernel: "clip", device: partials.device() };
    let count = partials.numel() as i64;
    check.tensor("partials", partials, Kind::Double, &[count])?;
    check.tensor("sticky", sticky, Kind::Int, &[1])?;
    check.require(count < 1 << 31, || format!("{count} partial sums are too many"))?;
    let unscale = 1.0 / scale;
    if !check.device.is_cuda() {
        let norm = (f64::try_from(partials.f_sum(Kind::Double)?)?.sqrt() * unscale) as f32;
        if !norm.is_finite() {
            let _ = sticky.shallow_clone().f_fill_(1)?;
        }
        let clips = max_norm > 0.0 && norm.is_finite();
        let factor = if clips { (max_norm as f32 / (norm + 1e-6)).min(1.0) } else { 1.0 };
        let go_on = if i64::try_from(sticky.f_select(0, 0)?)? == 0 { 1.0 } else { 0.0 };
        return Ok(Tensor::f_from_slice(&[norm, factor * unscale as f32, go_on])?);
    }
    let clip = Tensor::f_empty([3], (Kind::Float, check.device))?;
    Launch::new(&SOURCE, "clip", Kind::Float, check.device)?
        .tensor(partials)
        .int(count)
        .float(max_norm as f32)
        .float(unscale as f32)
        .tensor(sticky)
        .tensor(&clip)
        .run([1, 1, 1], THREADS, 0)?;
    Ok(clip)
}

/// Updates a trained tensor in place.
///
/// # Shapes
/// `values` and `grad`: the same, any, float32 (on the CPU also float64), contiguous. `moments`: of as many values.
/// `clip`: what [`clip`] gave.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn adamw(values: &Tensor, grad: &Tensor, moments: &Moments, step: &AdamWStep, clip: &Tensor) -> Result<(), Error> {
    let check = Check { kernel: "adamw", device: values.device() };
    check.tensor("values", values, master(values), &values.size())?;
    check.tensor("grad", grad, values.kind(), &values.size())?;
    let flat = [1, values.numel() as i64];
    let gradient = RowGradient { dense: Some(&grad.f_view(flat)?), sparse: None };
    adamw_rows(TableMut::Whole(&values.f_view(flat)?), 0..1, &gradient, moments, step, clip)
}

/// Updates rows of a trained table in place.
///
/// # Shapes
/// `moments`: of the whole table; in 8 bits, the rows must be whole blocks of 256 values (the last one of the table may
/// be short). `clip`: what [`clip`] gave.
///
/// # Errors
/// If the operands do not fit, or the device refuses.
pub fn adamw_rows(
    table: TableMut<'_>,
    rows: Range<i64>,
    gradient: &RowGradient<'_>,
    moments: &Moments,
    step: &AdamWStep,
    clip: &Tensor,
) -> Result<(), Error> {
    let (device, kind, size) = match &table {
        TableMut::Whole(values) => (values.device(), master(values), values.size()),
        TableMut::Halves(halves) => (halves.high.device(), Kind::Float, halves.high.size()),
    };
    let check = Check { kernel: "adamw", device };
    let [height, width] = size[..] else { return Err(check.wrong(format!("a table is a matrix, not {size:?}"))) };
    match &table {
        TableMut::Whole(values) => check.tensor("values", values, kind, &size)?,
        TableMut::Halves(halves) => {
            check.tensor("high", &halves.high, Kind::BFloat16, &size)?;
            check.tensor("low", &halves.low, Kind::Int16, &size)?;
        }
    }
    check.require(rows.end <= height, || format!("rows {rows:?} of {height}"))?;
    let gradient_kind = if gradient.dense.is_none() && gradient.sparse.is_none() { kind } else { gradient.kind() };
    check.require(gradient_kind == kind, || format!("a gradient of {gradient_kind:?} for values of {kind:?}"))?;
    check_gradient(&check, &rows, width, gradient, kind)?;
    if let Some(Sparse { slot_of_row, .. }) = gradient.sparse {
        check.tensor("slot_of_row", slot_of_row, Kind::Int, &[height])?;
    }
    check.tensor("clip", clip, Kind::Float, &[3])?;
    check.require(step.update > 0, || "updates are counted from 1 on".to_owned())?;
    let (first, count) = (rows.start * width, (rows.end - rows.start) * width);
    let moments = moments.slice(&check, height * width, first, count, kind)?;
    let sizes = Sizes::new(step);
    if !device.is_cuda() {
        return on_the_cpu(table, &rows, width, gradient, &moments, &sizes, clip);
    }
    let part = |tensor: &Tensor| tensor.f_narrow(0, rows.start, rows.end - rows.start);
    let (target, target_fits) = match table {
        TableMut::Whole(values) => {
            let values = part(values)?;
            ([address(&values), 0, 0], is_aligned(&values, 16))
        }
        TableMut::Halves(halves) => {
            let (high, low) = (part(&halves.high)?, part(&halves.low)?);
            ([0, address(&high), address(&low)], is_aligned(&high, 8) && is_aligned(&low, 8))
        }
    };
    let (name, states, states_fit, block_values) = match &moments {
        Moments::Float32 { mean, square } => {
            let fit = is_aligned(mean, 16) && is_aligned(square, 16);
            ("adamw", vec![address(mean), address(square)], fit, BLOCK_VALUES)
        }
        Moments::EightBit { mean, square, mean_scales, square_scales, maps } => {
            let states = [mean, square, mean_scales, square_scales, maps].map(address);
            ("adamw_8bit", states.to_vec(), is_aligned(mean, 4) && is_aligned(square, 4), 2 * BLOCK_VALUES)
        }
    };
    let gradient = gradient_words(&rows, width, gradient, target_fits && states_fit)?;
    let launch = Launch::new(&SOURCE, name, Kind::Float, device)?.structure(&gradient).structure(&target);
    let launch = match &moments {
        Moments::Float32 { .. } => states.iter().fold(launch, |launch, word| launch.long(*word as i64)),
        Moments::EightBit { .. } => launch.structure(&states),
    };
    launch.structure(&step_words(&sizes)).tensor(clip).run(
        [((count + block_values - 1) / block_values) as u32, 1, 1],
        THREADS,
        0,
    )
}

fn on_the_cpu(
    table: TableMut<'_>,
    rows: &Range<i64>,
    width: i64,
    gradient: &RowGradient<'_>,
    moments: &Moments,
    sizes: &Sizes,
    clip: &Tensor,
) -> Result<(), Error> {
    let clip = |number: i64| Ok::<_, Error>(f64::try_from(clip.f_select(0, number)?)?);
    if clip(2)? == 0.0 {
        return Ok(());
    }
    let kind = match moments {
        Moments::Float32 { mean, .. } => mean.kind(),
        Moments::EightBit { .. } => Kind::Float,
    };
    let count = rows.end - rows.start;
    let grad = reference::gradient(rows, width, gradient, kind)?.f_view(-1)?;
    match table {
        TableMut::Whole(values) => {
            reference::adamw(&values.f_narrow(0, rows.start, count)?.f_view(-1)?, &grad, moments, sizes, clip(1)?)?;
        }
        TableMut::Halves(halves) => {
            let values = halves.join(rows.start, count)?;
            reference::adamw(&values.f_view(-1)?, &grad, moments, sizes, clip(1)?)?;
            halves.write(rows.start, &values)?;
        }
    }
    Ok(())
}

impl RowGradient<'_> {
    fn kind(&self) -> Kind {
        self.dense.or(self.sparse.map(|sparse| sparse.values)).map_or(Kind::Float, master)
    }
}

fn check_gradient(
    check: &Check,
    rows: &Range<i64>,
    width: i64,
    gradient: &RowGradient<'_>,
    kind: Kind,
) -> Result<(), Error> {
    let count = rows.end - rows.start;
    let sane = rows.start >= 0 && count >= 0 && (0..1 << 40).contains(&width);
    check.require(sane, || format!("rows {rows:?} of {width} columns"))?;
    if let Some(dense) = gradient.dense {
        check.tensor("grad", dense, kind, &[count, width])?;
    }
    if let Some(Sparse { slot_of_row, values }) = gradient.sparse {
        // The kernels count fours of values in 32 bits.
        let fits = width < 1 << 31 && count * width < 1 << 34;
        check.require(fits, || format!("{count} rows of {width} are too many at once"))?;
        let height = slot_of_row.numel() as i64;
        check.tensor("slot_of_row", slot_of_row, Kind::Int, &[height])?;
        check.require(rows.end <= height, || format!("rows {rows:?}, and slots for {height}"))?;
        let slots = values.size().first().copied().unwrap_or_default();
        check.tensor("sparse", values, kind, &[slots, width])?;
    }
    Ok(())
}

/// `Gradient` of the CUDA source.
fn gradient_words(
    rows: &Range<i64>,
    width: i64,
    gradient: &RowGradient<'_>,
    others_aligned: bool,
) -> Result<[u64; 5], Error> {
    let count = rows.end - rows.start;
    let mut aligned = others_aligned && gradient.dense.is_none_or(|dense| is_aligned(dense, 16));
    let (mut slots, mut values, mut row_width) = (0, 0, 0);
    if let Some(sparse) = gradient.sparse {
        slots = address(&sparse.slot_of_row.f_narrow(0, rows.start, count)?);
        values = address(sparse.values);
        row_width = width as u32;
        aligned &= width % 4 == 0 && is_aligned(sparse.values, 16);
    }
    let flags = u64::from(row_width) | u64::from(aligned) << 32;
    Ok([gradient.dense.map_or(0, address), slots, values, (count * width) as u64, flags])
}

/// `Step` of the CUDA source.
fn step_words(sizes: &Sizes) -> [u64; 3] {
    let pair =
        |first: f64, second: f64| u64::from((first as f32).to_bits()) | u64::from((second as f32).to_bits()) << 32;
    [pair(sizes.keep, sizes.mean_weight), pair(sizes.square_weight, sizes.step), pair(sizes.root, sizes.epsilon)]
}

fn address(tensor: &Tensor) -> u64 {
    tensor.data_ptr() as u64
}

fn is_aligned(tensor: &Tensor, bytes: u64) -> bool {
    address(tensor).is_multiple_of(bytes)
}

/// float32, or float64 on the CPU where the tensor is.
fn master(tensor: &Tensor) -> Kind {
    let double = tensor.kind() == Kind::Double && tensor.device() == Device::Cpu;
    if double { Kind::Double } else { Kind::Float }
}
