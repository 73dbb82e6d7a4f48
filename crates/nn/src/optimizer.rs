//! AdamW and clipping, on the trained tensors of a model.
//!
//! States and arithmetic are float32. Everything is done in place, in slices of bounded size, so that the temporaries
//! of an embedding of hundreds of millions of values stay small.

use tch::{Kind, TchError, Tensor};

use crate::Parameter;

/// Values that are updated at once: 64 MiB of temporaries.
const SLICE_VALUES: i64 = 1 << 24;

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

/// AdamW: the running means of a list of parameters, which stays the same from update to update.
///
/// # Source
/// Loshchilov and Hutter, arXiv:1711.05101, in the form of `torch.optim.AdamW`; clipping as
/// `torch.nn.utils.clip_grad_norm_`.
#[derive(Debug)]
pub struct AdamW {
    options: AdamWOptions,
    updates: u64,
    moments: Vec<Moments>,
}

/// The running means of one parameter, of its shape, float32, on its device.
#[derive(Debug)]
pub struct Moments {
    /// Of the gradient.
    pub mean: Tensor,
    /// Of the squared gradient.
    pub square: Tensor,
}

impl AdamW {
    /// Fresh states for `parameters`.
    ///
    /// # Errors
    /// If the device has no memory for them.
    pub fn new(options: AdamWOptions, parameters: &[Parameter]) -> Result<Self, TchError> {
        let moments = parameters.iter().map(|parameter| {
            Ok(Moments { mean: parameter.value.f_zeros_like()?, square: parameter.value.f_zeros_like()? })
        });
        Ok(Self { options, updates: 0, moments: moments.collect::<Result<_, TchError>>()? })
    }

    /// Updates done.
    pub fn updates(&self) -> u64 {
        self.updates
    }

    /// The running means, in the order of the parameters.
    pub fn moments(&self) -> &[Moments] {
        &self.moments
    }

    /// Goes on as if `updates` updates had been done: fill the running means that are returned.
    pub fn restore(&mut self, updates: u64) -> &mut [Moments] {
        self.updates = updates;
        &mut self.moments
    }

    /// Clips the gradients, whose norm is `grad_norm` ([`grad_norm`]), and updates every parameter with them.
    ///
    /// # Errors
    /// If the device has no memory for the temporaries.
    pub fn update(&mut self, parameters: &mut [Parameter], learning_rate: f64, grad_norm: f32) -> Result<(), TchError> {
        self.updates += 1;
        let step = StepSizes::new(&self.options, self.updates, learning_rate, grad_norm);
        for (parameter, moments) in parameters.iter_mut().zip(&mut self.moments) {
            let flat = [&parameter.value, &parameter.grad, &moments.mean, &moments.square];
            let flat = flat.map(|tensor| tensor.f_view(-1_i64));
            let [value, grad, mean, square] = flat;
            let (value, grad, mean, square) = (value?, grad?, mean?, square?);
            let count = value.size1()?;
            for start in (0..count).step_by(SLICE_VALUES as usize) {
                let slice = |tensor: &Tensor| tensor.f_narrow(0, start, SLICE_VALUES.min(count - start));
                step.apply(&mut slice(&value)?, &mut slice(&grad)?, &mut slice(&mean)?, &mut slice(&square)?)?;
            }
        }
        Ok(())
    }
}

/// The L2 norm of the gradients of all `parameters` together, as a float32 scalar on their device.
///
/// # Errors
/// If the device has no memory for it.
pub fn grad_norm(parameters: &[Parameter]) -> Result<Tensor, TchError> {
    let norms = parameters.iter().map(|parameter| parameter.grad.f_norm()).collect::<Result<Vec<_>, _>>()?;
    Tensor::f_stack(&norms, 0)?.f_norm()?.f_to_kind(Kind::Float)
}

/// The name of a parameter with a value that is NaN or infinite, if there is one. Waits for the device.
///
/// # Errors
/// If the device refuses.
pub fn find_not_finite(parameters: &[Parameter]) -> Result<Option<&str>, TchError> {
    for parameter in parameters {
        // Needs no temporary of the tensor's size; a NaN is both the least and the greatest.
        let (least, greatest) = parameter.value.f_aminmax(None, false)?;
        for bound in [least, greatest] {
            if !f64::try_from(bound)?.is_finite() {
                return Ok(Some(&parameter.name));
            }
        }
    }
    Ok(None)
}

/// The scalars of one update.
struct StepSizes {
    clip: f64,
    keep: f64,
    beta1: f64,
    beta2: f64,
    step: f64,
    root: f64,
    epsilon: f64,
}

impl StepSizes {
    fn new(options: &AdamWOptions, updates: u64, learning_rate: f64, grad_norm: f32) -> Self {
        let updates = updates as f64;
        Self {
            clip: clip_factor(options.max_grad_norm, grad_norm),
            keep: 1.0 - learning_rate * options.weight_decay,
            beta1: options.beta1,
            beta2: options.beta2,
            step: learning_rate / (1.0 - options.beta1.powf(updates)),
            root: (1.0 - options.beta2.powf(updates)).sqrt(),
            epsilon: options.epsilon,
        }
    }

    fn apply(
        &self,
        value: &mut Tensor,
        grad: &mut Tensor,
        mean: &mut Tensor,
        square: &mut Tensor,
    ) -> Result<(), TchError> {
        if self.clip != 1.0 {
            let _ = grad.f_mul_scalar_(self.clip)?;
        }
        if self.keep != 1.0 {
            let _ = value.f_mul_scalar_(self.keep)?;
        }
        let _ = mean.f_lerp_(grad, 1.0 - self.beta1)?;
        let _ = square.f_lerp_(&grad.f_square()?, 1.0 - self.beta2)?;
        let denominator = square.f_sqrt()?.f_div_scalar_(self.root)?.f_add_scalar_(self.epsilon)?;
        let mut change = mean.f_div(&denominator)?;
        let _ = value.f_sub_(&change.f_mul_scalar_(self.step)?)?;
        Ok(())
    }
}

/// In float32, as PyTorch computes it on tensors.
fn clip_factor(max_grad_norm: f64, grad_norm: f32) -> f64 {
    if max_grad_norm <= 0.0 {
        return 1.0;
    }
    f64::from((max_grad_norm as f32 / (grad_norm + 1e-6)).min(1.0))
}
