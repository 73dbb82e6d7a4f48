//! The same on the CPU. In place, in slices of bounded size, so that temporaries stay small.

use std::ops::Range;

use tch::{Device, Kind, TchError, Tensor};

use super::{AdamWStep, Moments, RowGradient, Sparse, moments::BLOCK};

/// Values that are updated at once.
const SLICE_VALUES: i64 = 1 << 24;

/// What AdamW multiplies and divides with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Of the value, behind weight decay.
    pub(super) keep: f64,
    /// 1 - beta1
    pub(super) mean_weight: f64,
    /// 1 - beta2
    pub(super) square_weight: f64,
    /// Learning rate over the bias correction of the mean.
    pub(super) step: f64,
    /// Root of the bias correction of the square.
    pub(super) root: f64,
    pub(super) epsilon: f64,
}

impl Sizes {
    pub(super) fn new(step: &AdamWStep) -> Self {
        let updates = step.update as f64;
        Self {
            keep: 1.0 - step.learning_rate * step.weight_decay,
            mean_weight: 1.0 - step.beta1,
            square_weight: 1.0 - step.beta2,
            step: step.learning_rate / (1.0 - step.beta1.powf(updates)),
            root: (1.0 - step.beta2.powf(updates)).sqrt(),
            epsilon: step.epsilon,
        }
    }
}

/// The gradient of rows, `[rows, D]`.
pub(super) fn gradient(
    rows: &Range<i64>,
    width: i64,
    gradient: &RowGradient<'_>,
    kind: Kind,
) -> Result<Tensor, TchError> {
    let count = rows.end - rows.start;
    if let (Some(dense), None) = (gradient.dense, gradient.sparse) {
        return Ok(dense.shallow_clone());
    }
    let mut sum = Tensor::f_zeros([count, width], (kind, Device::Cpu))?;
    if let Some(dense) = gradient.dense {
        sum.f_copy_(dense)?;
    }
    if let Some(Sparse { slot_of_row, values }) = gradient.sparse {
        let slots = slot_of_row.f_narrow(0, rows.start, count)?;
        let index = slots.f_ge(0)?.f_nonzero()?.f_squeeze_dim(1)?;
        let _ = sum.f_index_add_(0, &index, &values.f_index_select(0, &slots.f_index_select(0, &index)?)?)?;
    }
    Ok(sum)
}

/// All tensors flat, of as many values.
pub(super) fn adamw(
    values: &Tensor,
    grad: &Tensor,
    moments: &Moments,
    sizes: &Sizes,
    factor: f64,
) -> Result<(), TchError> {
    let count = values.size1()?;
    match moments {
        Moments::Float32 { mean, square } => {
            for start in (0..count).step_by(SLICE_VALUES as usize) {
                let slice = |tensor: &Tensor| tensor.f_narrow(0, start, SLICE_VALUES.min(count - start));
                let grad = slice(grad)?.f_mul_scalar(factor)?;
                sizes.float32(&mut slice(values)?, &grad, &mut slice(mean)?, &mut slice(square)?)?;
            }
            Ok(())
        }
        Moments::EightBit { mean, square, mean_scales, square_scales, maps } => {
            let maps = Vec::<f32>::try_from(maps.f_view(-1)?)?;
            let (mean_map, square_map) = maps.split_at(256);
            let mut states = EightBits {
                mean: Vec::<u8>::try_from(mean)?,
                square: Vec::<u8>::try_from(square)?,
                mean_map,
                square_map,
                sizes,
                factor: factor as f32,
            };
            let mut value = Vec::<f32>::try_from(values)?;
            let grad = Vec::<f32>::try_from(grad)?;
            let mut scales = [Vec::<f32>::try_from(mean_scales)?, Vec::<f32>::try_from(square_scales)?];
            for block in 0..scales[0].len() {
                let of_block = block * BLOCK as usize..value.len().min((block + 1) * BLOCK as usize);
                let found = states.update(of_block, [scales[0][block], scales[1][block]], &mut value, &grad);
                [scales[0][block], scales[1][block]] = found;
            }
            for (tensor, scales) in [mean_scales, square_scales].into_iter().zip(&scales) {
                tensor.shallow_clone().f_copy_(&Tensor::f_from_slice(scales)?)?;
            }
            for (tensor, codes) in [mean, square].into_iter().zip([&states.mean, &states.square]) {
                tensor.shallow_clone().f_copy_(&Tensor::f_from_slice(codes)?)?;
            }
            values.shallow_clone().f_copy_(&Tensor::f_from_slice(&value)?)?;
            Ok(())
        }
    }
}

impl Sizes {
    fn float32(
        &self,
        value: &mut Tensor,
        grad: &Tensor,
        mean: &mut Tensor,
        square: &mut Tensor,
    ) -> Result<(), TchError> {
        if self.keep != 1.0 {
            let _ = value.f_mul_scalar_(self.keep)?;
        }
        let _ = mean.f_lerp_(grad, self.mean_weight)?;
        let _ = square.f_lerp_(&grad.f_square()?, self.square_weight)?;
        let denominator = square.f_sqrt()?.f_div_scalar_(self.root)?.f_add_scalar_(self.epsilon)?;
        let mut change = mean.f_div(&denominator)?;
        let _ = value.f_sub_(&change.f_mul_scalar_(self.step)?)?;
        Ok(())
    }
}

/// States in 8 bits while they are updated, operation for operation as the kernel does it.
struct EightBits<'a> {
    mean: Vec<u8>,
    square: Vec<u8>,
    mean_map: &'a [f32],
    square_map: &'a [f32],
    sizes: &'a Sizes,
    factor: f32,
}

impl EightBits<'_> {
    /// Updates a block; gives its new scales.
    fn update(&mut self, of_block: Range<usize>, scales: [f32; 2], values: &mut [f32], grad: &[f32]) -> [f32; 2] {
        let sizes = self.sizes;
        let mut states = Vec::with_capacity(of_block.len());
        for i in of_block.clone() {
            let g = grad[i] * self.factor;
            let mean = lerp(self.mean_map[usize::from(self.mean[i])] * scales[0], g, sizes.mean_weight as f32);
            let square = self.square_map[usize::from(self.square[i])] * scales[1];
            let square = lerp(square, g * g, sizes.square_weight as f32);
            let denominator = square.sqrt() / sizes.root as f32 + sizes.epsilon as f32;
            values[i] = values[i] * sizes.keep as f32 - mean / denominator * sizes.step as f32;
            states.push([mean, square]);
        }
        let most = |which: usize| states.iter().fold(0.0, |most: f32, state| most.max(state[which].abs()));
        let most = [most(0), most(1)];
        for (i, [mean, square]) in of_block.zip(states) {
            self.mean[i] = match mean {
                0.0 => 127,
                _ => match nearest(self.mean_map, mean / most[0]) {
                    code if mean < 0.0 && self.mean_map[code] >= 0.0 => code as u8 - 1,
                    code if mean > 0.0 && self.mean_map[code] < 0.0 => code as u8 + 1,
                    code => code as u8,
                },
            };
            self.square[i] = if square > 0.0 { nearest(self.square_map, square / most[1]).max(1) as u8 } else { 0 };
        }
        most
    }
}

fn lerp(from: f32, to: f32, weight: f32) -> f32 {
    let way = to - from;
    if weight < 0.5 { from + weight * way } else { to - way * (1.0 - weight) }
}

/// The entry of a map that is nearest, found as bitsandbytes finds it.
fn nearest(map: &[f32], value: f32) -> usize {
    let (mut lower, mut pivot, mut upper) = (0, 127, 255);
    for step in [64, 32, 16, 8, 4, 2, 1] {
        if value > map[pivot] {
            lower = pivot;
            pivot += step;
        } else {
            upper = pivot;
            pivot -= step;
        }
    }
    let found = map[pivot];
    if value > found {
        if value > (map[upper] + found) * 0.5 { upper } else { pivot }
    } else if value < (map[lower] + found) * 0.5 {
        lower
    } else {
        pivot
    }
}
